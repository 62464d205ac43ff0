'use client'

import { useMemo } from 'react'
import { useChatClient, useStrings } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { displayName, firstName } from '../format/names'

export interface TypingIndicatorState {
  typingUsers: readonly string[]
  /** First names, in the order of `typingUsers`. */
  typingNames: readonly string[]
  isTyping: boolean
  startTyping(): void
  stopTyping(): void
  /** Call it with each change of the text. The client decides what to send. */
  onInput(value: string): void
}

const NONE: readonly string[] = []

export function useTypingIndicator(conversationId: string, _userId?: string): TypingIndicatorState {
  const client = useChatClient()
  const strings = useStrings()
  const typingUsers = useChatState((state) => state.typing[conversationId]) ?? NONE
  const people = useChatState((state) => state.people)
  const typingNames = useMemo(
    () => typingUsers.map((id) => firstName(displayName(people[id], strings))),
    [typingUsers, people, strings],
  )
  const actions = useMemo(() => {
    const conversation = client.conversation(conversationId)
    return {
      startTyping: () => void client.api.setTyping(conversationId, true),
      stopTyping: () => conversation.stopTyping(),
      onInput: (value: string) => conversation.setDraft(value),
    }
  }, [client, conversationId])
  return { typingUsers, typingNames, isTyping: typingUsers.length > 0, ...actions }
}
