'use client'

import { useState, type ReactNode } from 'react'
import { useChatState } from '../context/use-store'
import { IconButton } from '../parts/icon-button'
import { MessagesIcon } from '../parts/icons'
import { lazyComponent } from '../parts/lazy-component'
import { UnreadBadge } from '../parts/unread-badge'
import { useMessagesLabel } from './messages-badge'

export interface QuickAccessProps {
  onOpen: (conversationId: string | null) => void
  onNewConversation?: () => void
}

const panel = lazyComponent(() => import('./quick-panel').then(({ QuickPanel }) => QuickPanel))

/** A button for the top bar that opens a panel with the latest unread conversations. */
export function QuickAccess({ onOpen, onNewConversation }: QuickAccessProps): ReactNode {
  const [anchor, setAnchor] = useState<Element | null>(null)
  const label = useMessagesLabel()
  const total = useChatState((state) => state.unread.total)
  return (
    <span className="rpt rpt-quick-access" data-slot="quick-access">
      <IconButton
        label={label}
        aria-haspopup="dialog"
        aria-expanded={anchor !== null}
        onPointerEnter={panel.preload}
        onFocus={panel.preload}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <MessagesIcon size={20} />
        <UnreadBadge count={total} />
      </IconButton>
      {anchor && (
        <panel.View
          anchor={anchor}
          onClose={() => setAnchor(null)}
          onOpen={onOpen}
          onNewConversation={onNewConversation}
        />
      )}
    </span>
  )
}
