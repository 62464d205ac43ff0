'use client'

import { MessagesSquare } from 'lucide-react'
import { useMemo, useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { previewText } from '../components/message/quote'
import { displayName } from '../format/names'
import { isUnread } from '../hooks/use-conversations'
import { Avatar } from '../parts/avatar'
import { IconButton } from '../parts/icon-button'
import { Popup } from '../parts/popup'
import { Time } from '../parts/time'
import { UnreadBadge } from '../parts/unread-badge'
import { useMessagesLabel } from './messages-badge'

export interface QuickAccessProps {
  onOpen: (conversationId: string | null) => void
  onNewConversation?: () => void
}

const SHOWN = 5

/** A button for the top bar with the latest unread conversations. */
export function QuickAccess({ onOpen, onNewConversation }: QuickAccessProps): ReactNode {
  const { strings } = useChatContext()
  const client = useChatClient()
  const [anchor, setAnchor] = useState<Element | null>(null)
  const label = useMessagesLabel()
  const total = useChatState((state) => state.unread.total)
  const all = useChatState((state) => state.conversations)
  const presence = useChatState((state) => state.presence)
  const unread = useMemo(
    () => all.filter((conversation) => isUnread(conversation) && !conversation.is_archived).slice(0, SHOWN),
    [all],
  )
  const go = (id: string | null): void => {
    setAnchor(null)
    onOpen(id)
  }
  return (
    <span className="rpt rpt-quick-access" data-slot="quick-access">
      <IconButton
        label={label}
        aria-haspopup="dialog"
        aria-expanded={anchor !== null}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <MessagesSquare aria-hidden size={20} />
        <UnreadBadge count={total} />
      </IconButton>
      {anchor && (
        <Popup
          anchor={anchor}
          role="dialog"
          label={strings.messages}
          className="rpt-quick-panel"
          onClose={() => setAnchor(null)}
        >
          <header className="rpt-quick-header">
            <h2 className="rpt-group-title">{strings.messages}</h2>
            {unread.length > 0 && (
              <button type="button" className="rpt-text-button" onClick={() => void client.markAllRead()}>
                {strings.markAllRead}
              </button>
            )}
          </header>
          {unread.length === 0 ? (
            <p className="rpt-hint">{strings.nothingUnread}</p>
          ) : (
            <ul className="rpt-people">
              {unread.map((conversation) => (
                <li key={conversation.id}>
                  <button type="button" className="rpt-person" onClick={() => go(conversation.id)}>
                    <Avatar
                      person={conversation.other_user}
                      size={32}
                      presence={presence[conversation.other_user?.id ?? '']?.status}
                    />
                    <span className="rpt-person-text">
                      <span className="rpt-person-top">
                        <bdi className="rpt-person-name">{displayName(conversation.other_user, strings)}</bdi>
                        {conversation.last_message_at && (
                          <Time value={conversation.last_message_at} kind="short" className="rpt-item-time" />
                        )}
                      </span>
                      <span className="rpt-person-email" dir="auto">
                        {conversation.last_message && previewText(conversation.last_message, strings)}
                      </span>
                    </span>
                    <UnreadBadge count={Math.max(1, conversation.unread_count)} isMuted={conversation.is_muted} />
                  </button>
                </li>
              ))}
            </ul>
          )}
          <footer className="rpt-quick-footer">
            <button type="button" className="rpt-button" onClick={() => go(null)}>
              {strings.openMessages}
            </button>
            {onNewConversation && (
              <button
                type="button"
                className="rpt-button"
                data-kind="primary"
                onClick={() => {
                  setAnchor(null)
                  onNewConversation()
                }}
              >
                {strings.newMessage}
              </button>
            )}
          </footer>
        </Popup>
      )}
    </span>
  )
}
