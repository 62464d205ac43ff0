'use client'

import type { Conversation, Presence } from '@rapport-chat/client'
import { BellOff, CircleAlert, Image, Paperclip, Pin } from 'lucide-react'
import { memo, type MouseEvent, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useOptionalChatState } from '../context/use-store'
import { conversationName } from '../format/names'
import { oneLine } from '../format/text'
import { Avatar } from '../parts/avatar'
import { Time } from '../parts/time'
import { UnreadBadge } from '../parts/unread-badge'
import { ConversationMenuButton } from './conversation-menu'
import { StateIcon } from './message/message-meta'
import { previewText } from './message/quote'

export interface ConversationItemProps {
  conversation: Conversation
  currentUserId?: string
  isActive?: boolean
  unreadCount?: number
  userPresence?: Presence | undefined
  onClick?: (conversation: Conversation) => void
  /** Called by the menu instead of archiving. */
  onArchive?: ((conversationId: string) => void) | undefined
  /** Called by the menu, after the user has confirmed, instead of deleting. */
  onDelete?: ((conversationId: string) => void) | undefined
  /** 0 if the item has the list's tab stop, otherwise -1. */
  tabIndex?: number
  density?: 'comfortable' | 'compact'
}

/** One conversation of the list: a link or button that also describes the state in words. */
export const ConversationItem = memo(function ConversationItem(props: ConversationItemProps): ReactNode {
  const { components } = useChatContext()
  const Replacement = components.ConversationItem
  return Replacement ? <Replacement {...props} /> : <DefaultItem {...props} />
})

function DefaultItem({
  conversation,
  currentUserId,
  isActive = false,
  unreadCount,
  userPresence,
  onClick,
  onArchive,
  onDelete,
  tabIndex = 0,
  density = 'comfortable',
}: ConversationItemProps): ReactNode {
  const { client, strings, linkTo } = useChatContext()
  const me = currentUserId ?? client?.userId ?? ''
  const isTyping = useOptionalChatState((state) => (state.typing[conversation.id]?.length ?? 0) > 0, false)
  const hasFailed = useOptionalChatState(
    (state) => state.timelines[conversation.id]?.messages.some((message) => message.state === 'failed') ?? false,
    false,
  )
  const { other_user: person, is_pinned, is_muted, marked_unread } = conversation
  const name = conversationName(conversation, person, strings)
  const count = unreadCount ?? conversation.unread_count
  const isUnread = count > 0 || marked_unread
  const when = conversation.last_message_at

  // Describes what is otherwise shown only by dots, signs and font weight. The link's accessible
  // name consists of these words and the visible text.
  const words: string[] = []
  if (userPresence) words.push(strings[userPresence.status])
  if (count > 0) words.push(strings.unreadCount(count))
  else if (marked_unread) words.push(strings.markedUnread)
  if (is_pinned) words.push(strings.pinned)
  if (is_muted) words.push(strings.muted)
  if (hasFailed) words.push(strings.notSent)

  const content = (
    <>
      <Avatar person={person} size={density === 'compact' ? 32 : 40} presence={userPresence?.status} />
      <span className="rpt-item-text">
        <span className="rpt-item-top">
          <bdi className="rpt-item-name">{name}</bdi>
          <span className="rpt-hidden">{strings.rowLabel(['', ...words, ''])}</span>
          {is_muted && <BellOff className="rpt-item-sign" aria-hidden size={14} />}
          {is_pinned && <Pin className="rpt-item-sign" aria-hidden size={14} />}
          {when && <Time value={when} kind="short" className="rpt-item-time" />}
        </span>
        <span className="rpt-item-bottom">
          <Preview conversation={conversation} me={me} isTyping={isTyping} isActive={isActive} />
          {hasFailed && <CircleAlert className="rpt-item-failed" aria-hidden size={16} />}
          <UnreadBadge count={count} isMuted={is_muted} />
          {count === 0 && marked_unread && <UnreadBadge count={1} isDot isMuted={is_muted} />}
        </span>
      </span>
    </>
  )
  const shared = {
    className: 'rpt-item-link',
    'data-slot': 'conversation-link',
    'data-conversation': conversation.id,
    'aria-current': isActive ? ('page' as const) : undefined,
    tabIndex,
    onClick: (event: MouseEvent) => {
      // With a modifier key, the browser opens the link in a new tab or window.
      if (linkTo && (event.metaKey || event.ctrlKey || event.shiftKey)) return
      if (!onClick) return
      event.preventDefault()
      onClick(conversation)
    },
  }
  return (
    <li
      className="rpt-item"
      data-slot="conversation"
      data-active={isActive || undefined}
      data-unread={isUnread || undefined}
      data-muted={is_muted || undefined}
      data-density={density}
    >
      {linkTo ? (
        <a href={linkTo({ to: 'conversation', conversationId: conversation.id })} {...shared}>
          {content}
        </a>
      ) : (
        <button type="button" {...shared}>
          {content}
        </button>
      )}
      {client && (
        <ConversationMenuButton
          conversation={conversation}
          name={name}
          label={strings.conversationMenu(name)}
          size="small"
          tabIndex={tabIndex}
          onArchive={onArchive}
          onDelete={onDelete}
        />
      )}
    </li>
  )
}

/** Shows "typing…", the draft, or the last message in one line. */
function Preview({
  conversation,
  me,
  isTyping,
  isActive,
}: {
  conversation: Conversation
  me: string
  isTyping: boolean
  isActive: boolean
}): ReactNode {
  const { strings } = useChatContext()
  const { last_message: last, draft } = conversation
  if (isTyping) return <span className="rpt-item-preview rpt-item-accent">{strings.previewTyping}</span>
  // The open conversation shows its draft in the composer.
  if (draft && draft.trim() !== '' && !isActive)
    return (
      <span className="rpt-item-preview" dir="auto">
        <span className="rpt-item-accent">{strings.previewDraft}</span> {oneLine(draft)}
      </span>
    )
  if (!last) return <span className="rpt-item-preview">{strings.previewNone}</span>
  const text = previewText(last, strings)
  const FileIcon = last.message_type === 'file' ? Paperclip : last.message_type === 'image' ? Image : null
  const isOwn = last.sender_id === me
  const isRead = isOwn && (conversation.peer_last_read_seq ?? -1) >= conversation.last_seq
  return (
    <span className="rpt-item-preview" data-deleted={last.is_deleted || undefined} dir="auto">
      {/* `bdi`, so that “You:” does not determine the direction of the text that follows. */}
      {isOwn && <bdi className="rpt-hidden">{strings.previewOwn('')}</bdi>}
      {isOwn && !last.is_deleted && (
        <span className="rpt-item-state" aria-hidden="true">
          <StateIcon
            state={
              isRead
                ? 'read'
                : (conversation.peer_last_delivered_seq ?? -1) >= conversation.last_seq
                  ? 'delivered'
                  : 'sent'
            }
          />
        </span>
      )}
      {FileIcon && !last.is_deleted && <FileIcon className="rpt-item-state" aria-hidden size={14} />}
      {text}
    </span>
  )
}
