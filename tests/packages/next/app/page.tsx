// A server component. It renders components of the packages, although this file has no 'use
// client'.
import { Messenger } from '@rapport-chat/react'
import { MessagesBadge, PresenceMenu } from '@rapport-chat/react/navigation'
import type { ReactNode } from 'react'
import { Access } from './access'

export default function Page(): ReactNode {
  return (
    <>
      <header style={{ display: 'flex' }}>
        <span>
          Messages <MessagesBadge />
        </span>
        <Access />
        <PresenceMenu />
      </header>
      <div style={{ blockSize: '80vh' }}>
        <Messenger />
      </div>
    </>
  )
}
