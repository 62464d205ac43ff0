import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import '@rapport-chat/react/styles.css'
import './page.css'
import { App } from './app'
import { applyToPage, pageOptions } from './options'
import { loadPeople } from './session'

// The request starts before rendering. `App` handles a failure.
loadPeople().catch(() => undefined)
applyToPage(pageOptions())
createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
