'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { Pin } from 'lucide-react'
import { useMemo, useState, type ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { previewText } from './message/quote'

/**
 * Shows one of the loaded pinned messages. Pressing it opens the message and shows the next one.
 */
export function PinnedBar({
  messages,
  onOpen,
}: {
  messages: readonly TimelineMessage[]
  onOpen: (messageId: string) => void
}): ReactNode {
  const strings = useStrings()
  const pinned = useMemo(
    () => messages.filter((message) => message.is_pinned && !message.is_deleted).reverse(),
    [messages],
  )
  const [at, setAt] = useState(0)
  const shown = pinned[at % Math.max(1, pinned.length)]
  if (!shown) return null
  return (
    <button
      type="button"
      className="rpt-pinned"
      data-slot="pinned-bar"
      onClick={() => {
        onOpen(shown.id)
        setAt(at + 1)
      }}
    >
      <Pin aria-hidden size={16} />
      <span className="rpt-pinned-count">{strings.pinnedMessages(pinned.length)}</span>
      <span className="rpt-pinned-text" dir="auto">
        {previewText(shown, strings)}
      </span>
    </button>
  )
}
