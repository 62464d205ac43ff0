'use client'

import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import { useChatClient } from '../context/chat-context'

export interface Draft {
  draft: string
  setDraft(text: string): void
}

/**
 * The unsent text of a conversation. It is kept across reloads and synchronized to the user's other
 * devices. Once the user has typed here, a draft from another device no longer replaces the text.
 */
export function useDraft(conversationId: string): Draft {
  const client = useChatClient()
  const conversation = useMemo(() => client.conversation(conversationId), [client, conversationId])
  const subscribe = useCallback((listener: () => void) => conversation.subscribe(listener), [conversation])
  const stored = useSyncExternalStore(
    subscribe,
    () => conversation.getDraft(),
    () => '',
  )
  const [typed, setTyped] = useState<{ conversationId: string; text: string } | null>(null)

  useEffect(() => client.listen(({ type }) => type === 'forgotten' && setTyped(null)), [client])

  const setDraft = useCallback(
    (text: string) => {
      conversation.setDraft(text)
      setTyped({ conversationId, text })
    },
    [conversation, conversationId],
  )
  return { draft: typed?.conversationId === conversationId ? typed.text : stored, setDraft }
}
