'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { Plus } from 'lucide-react'
import type { ReactNode } from 'react'
import { useChatContext } from '../../context/chat-context'
import { QUICK_REACTIONS } from '../../list/message-actions'
import { Menu } from '../../parts/menu'
import type { PopupAnchor } from '../../parts/popup'

interface QuickReactionsProps {
  message: TimelineMessage
  onSelect: (emoji: string) => void
  onMore: () => void
}

/** A row of frequent reactions, and a button that opens the picker for all others. */
export function QuickReactions({ message, onSelect, onMore }: QuickReactionsProps): ReactNode {
  const { strings, emojiDataUrl } = useChatContext()
  const mine = new Set(message.reactions.filter(({ me }) => me).map(({ emoji }) => emoji))
  return (
    <div className="rpt-quick" data-slot="quick-reactions" role="group" aria-label={strings.react}>
      {QUICK_REACTIONS.map((emoji) => (
        <button
          key={emoji}
          type="button"
          className="rpt-quick-emoji"
          data-menu-item
          role="menuitemcheckbox"
          aria-checked={mine.has(emoji)}
          aria-label={strings.reactWith(emoji)}
          tabIndex={-1}
          onClick={() => onSelect(emoji)}
        >
          {emoji}
        </button>
      ))}
      {emojiDataUrl && (
        <button
          type="button"
          className="rpt-quick-emoji"
          data-menu-item
          role="menuitem"
          aria-label={strings.emoji}
          title={strings.emoji}
          tabIndex={-1}
          onClick={onMore}
        >
          <Plus aria-hidden size={18} />
        </button>
      )}
    </div>
  )
}

interface ReactionMenuProps extends QuickReactionsProps {
  anchor: PopupAnchor
  onClose: () => void
  onRestoreFocus: () => void
}

export function ReactionMenu({ anchor, onClose, onRestoreFocus, ...quick }: ReactionMenuProps): ReactNode {
  const { strings } = useChatContext()
  return (
    <Menu
      anchor={anchor}
      label={strings.react}
      items={[]}
      header={<QuickReactions {...quick} />}
      onClose={onClose}
      onRestoreFocus={onRestoreFocus}
    />
  )
}
