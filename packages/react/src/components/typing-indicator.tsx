'use client'

import { useEffect, useRef, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useTypingIndicator } from '../hooks/use-typing-indicator'
import type { ChatStrings } from '../strings/en'

export interface TypingIndicatorProps {
  /** The ids of the users who are typing. */
  typingUsers?: readonly string[]
  /** Their names, in the same order. */
  userNames?: readonly string[]
}

/** A person is announced again only after this time. */
const ANNOUNCE_MS = 60_000

export function typingText(names: readonly string[], strings: ChatStrings): string {
  const [first, second] = names
  if (first === undefined) return strings.typingNone
  if (second === undefined) return strings.typingOne(first)
  return names.length === 2 ? strings.typingTwo(first, second) : strings.typingMany
}

/** Three dots at the end of the list. Their space is reserved, so that nothing moves. */
export function TypingIndicator({ typingUsers = [], userNames = [] }: TypingIndicatorProps): ReactNode {
  const { strings, announce } = useChatContext()
  const text = typingUsers.length > 0 ? typingText(userNames, strings) : ''
  const announced = useRef(new Map<string, number>())
  const people = typingUsers.join(' ')

  useEffect(() => {
    const now = Date.now()
    const isNew = (id: string): boolean => now - (announced.current.get(id) ?? -Infinity) >= ANNOUNCE_MS
    const fresh = people.split(' ').filter((id) => id !== '' && isNew(id))
    if (fresh.length === 0) return
    for (const id of fresh) announced.current.set(id, now)
    announce(text)
  }, [people, text, announce])

  return (
    <div className="rpt-typing" data-slot="typing-indicator" data-visible={text !== '' || undefined}>
      <span className="rpt-typing-dots" aria-hidden="true">
        <span />
        <span />
        <span />
      </span>
      <span className="rpt-hidden">{text}</span>
    </div>
  )
}

/** The typing indicator of a conversation in the provider's client. */
export function ConversationTyping({ conversationId }: { conversationId: string }): ReactNode {
  const { components } = useChatContext()
  const { typingUsers, typingNames } = useTypingIndicator(conversationId)
  const Component = components.TypingIndicator ?? TypingIndicator
  return <Component typingUsers={typingUsers} userNames={typingNames} />
}
