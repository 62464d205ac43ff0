import '@rapport-chat/react/styles.css'
import type { ReactNode } from 'react'
import { Provider } from './provider'

export const metadata = { title: 'Next.js', icons: { icon: 'data:,' } }

export default function Layout({ children }: { children: ReactNode }): ReactNode {
  return (
    <html lang="en">
      <body>
        <Provider>{children}</Provider>
      </body>
    </html>
  )
}
