'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useSlot, useStrings } from '../../context/chat-context'
import { useOptionalChatState } from '../../context/use-store'
import { displayName } from '../../format/names'
import { previewText } from '../../format/preview'

export { previewText } from '../../format/preview'

export type Quoted = NonNullable<TimelineMessage['reply_to']>

export function useQuotedName(senderId: string | null): string {
  const strings = useStrings()
  const me = useOptionalChatState((state) => state.me.id, '')
  const person = useOptionalChatState((state) => state.people[senderId ?? ''] ?? null, null)
  return senderId && senderId === me ? strings.you : displayName(person, strings)
}

export interface QuoteProps {
  quoted: Quoted
  onOpen?: ((messageId: string) => void) | undefined
}

/** The message that is replied to. */
export function Quote({ quoted, onOpen }: QuoteProps): ReactNode {
  const strings = useStrings()
  const slot = useSlot('quote', 'rpt-quote')
  const name = useQuotedName(quoted.sender_id)
  const text = previewText(quoted, strings)
  return (
    <button
      {...slot}
      type="button"
      data-slot="quote"
      tabIndex={-1}
      disabled={!onOpen || quoted.is_deleted}
      onClick={() => onOpen?.(quoted.id)}
    >
      <span className="rpt-hidden">{strings.reply}</span>
      <span className="rpt-quote-name">
        <bdi>{name}</bdi>
      </span>
      <span className="rpt-quote-text" dir="auto" data-deleted={quoted.is_deleted || undefined}>
        {text}
      </span>
    </button>
  )
}
