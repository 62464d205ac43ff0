'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useSlot, useStrings } from '../../context/chat-context'
import { useOptionalChatState } from '../../context/use-store'
import { displayName } from '../../format/names'
import { inline } from '../../format/text'

export interface ReactionsProps {
  message: TimelineMessage
  onReact?: ((message: TimelineMessage, emoji: string) => void) | undefined
}

export function Reactions({ message, onReact }: ReactionsProps): ReactNode {
  const strings = useStrings()
  const slot = useSlot('reactions', 'rpt-reactions')
  const people = useOptionalChatState((state) => state.people, {})
  const me = useOptionalChatState((state) => state.me.id, '')
  const list = new Intl.ListFormat(strings.locale, { type: 'conjunction' })
  return (
    <div {...slot} data-slot="reactions">
      {message.reactions.map(({ emoji, count, me: isMine, user_ids }) => {
        const shown = inline(emoji)
        const names = list.format(user_ids.map((id) => (id === me ? strings.you : displayName(people[id], strings))))
        return (
          <button
            key={emoji}
            type="button"
            className="rpt-reaction"
            tabIndex={-1}
            aria-pressed={isMine}
            aria-label={`${strings.reactionBy(shown, names)}, ${count}`}
            title={strings.reactionBy(shown, names)}
            disabled={!onReact}
            onClick={() => onReact?.(message, emoji)}
          >
            <span className="rpt-reaction-emoji">{shown}</span>
            <span className="rpt-reaction-count">{count.toLocaleString(strings.locale)}</span>
          </button>
        )
      })}
    </div>
  )
}
