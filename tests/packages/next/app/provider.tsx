'use client'

import { createChatClient, type ChatClient } from '@rapport-chat/client'
import { ChatProvider } from '@rapport-chat/react'
import { useEffect, useState, type ReactNode } from 'react'
import { signIn } from './sign-in'

export function Provider({ children }: { children: ReactNode }): ReactNode {
  const [client, setClient] = useState<ChatClient | null>(null)
  useEffect(() => {
    void signIn().then((options) => setClient(createChatClient(options)))
  }, [])
  if (!client) return null
  return (
    <ChatProvider client={client} emojiDataUrl="/emoji-data">
      {children}
    </ChatProvider>
  )
}
