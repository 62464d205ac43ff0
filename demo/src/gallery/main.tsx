import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import '@rapport-chat/react/styles.css'
import '../page.css'
import './gallery.css'
import { applyToPage, pageOptions } from '../options'
import { Gallery } from './gallery'

applyToPage(pageOptions())
createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <Gallery />
  </StrictMode>,
)
