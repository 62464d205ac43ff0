import { createChatClient, type ChatClient } from '@rapport-chat/client'
import { ChatProvider, Messenger, type ChatStrings } from '@rapport-chat/react'
import { MessagesBadge, PresenceMenu, QuickAccess } from '@rapport-chat/react/navigation'
import { de } from '@rapport-chat/react/strings/de'
import { useEffect, useState, type ReactNode } from 'react'
import { signIn } from './sign-in'

const strings: ChatStrings | null = location.hash === '#de' ? de : null

export function Chat(): ReactNode {
  const [client, setClient] = useState<ChatClient | null>(null)
  useEffect(() => {
    void signIn().then((options) => setClient(createChatClient(options)))
  }, [])
  if (!client) return null
  return (
    <ChatProvider client={client} emojiDataUrl="/emoji-data" {...(strings && { strings })}>
      <header style={{ display: 'flex' }}>
        <span>
          Messages <MessagesBadge />
        </span>
        <QuickAccess onOpen={() => undefined} />
        <PresenceMenu />
      </header>
      <div style={{ blockSize: '80vh' }}>
        <Messenger />
      </div>
    </ChatProvider>
  )
}
