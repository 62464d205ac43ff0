'use client'

import { useMemo, type ReactNode } from 'react'
import { useChatClient, useNavigationStrings } from '../context/base-context'
import { useChatState } from '../context/use-store'
import { conversationName } from '../format/names'
import { previewText } from '../format/preview'
import { isUnread } from '../format/unread'
import { Avatar } from '../parts/avatar'
import { Popup } from '../parts/popup'
import { Time } from '../parts/time'
import { UnreadBadge } from '../parts/unread-badge'

export interface QuickPanelProps {
  anchor: Element
  onClose: () => void
  onOpen: (conversationId: string | null) => void
  onNewConversation?: (() => void) | undefined
}

const SHOWN = 5

/** A panel with the latest unread conversations. Its code is loaded when it is first opened. */
export function QuickPanel({ anchor, onClose, onOpen, onNewConversation }: QuickPanelProps): ReactNode {
  const strings = useNavigationStrings()
  const client = useChatClient()
  const all = useChatState((state) => state.conversations)
  const presence = useChatState((state) => state.presence)
  const unread = useMemo(
    () => all.filter((conversation) => isUnread(conversation) && !conversation.is_archived).slice(0, SHOWN),
    [all],
  )
  const go = (id: string | null): void => {
    onClose()
    onOpen(id)
  }
  return (
    <Popup anchor={anchor} role="dialog" label={strings.messages} className="rpt-quick-panel" onClose={onClose}>
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
                    <bdi className="rpt-person-name">
                      {conversationName(conversation, conversation.other_user, strings)}
                    </bdi>
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
              onClose()
              onNewConversation()
            }}
          >
            {strings.newMessage}
          </button>
        )}
      </footer>
    </Popup>
  )
}
