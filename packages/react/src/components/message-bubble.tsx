'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { Pin, Trash2 } from 'lucide-react'
import { memo, useState, type ReactNode } from 'react'
import { useChatContext, useSlot } from '../context/chat-context'
import { isEmojiOnly, isLong } from '../format/text'
import { MessageText } from '../format/message-text'
import type { MessageActions } from '../list/message-actions'
import type { Position } from '../list/rows'
import { Avatar } from '../parts/avatar'
import * as parts from './message/parts'

export interface MessageBubbleProps {
  message: TimelineMessage
  isOwn?: boolean
  currentUserId?: string
  showAvatar?: boolean
  /** By default, only the last message of a group shows its time. */
  showTimestamp?: boolean
  position?: Position
  actions?: MessageActions
}

/** One message: its quote, its content, its state and its reactions. */
export const MessageBubble = memo(function MessageBubble(props: MessageBubbleProps): ReactNode {
  const { components } = useChatContext()
  const Replacement = components.MessageBubble
  return Replacement ? <Replacement {...props} /> : <DefaultBubble {...props} />
})

function DefaultBubble({
  message,
  isOwn = message.isOwn,
  showAvatar = false,
  position = 'single',
  showTimestamp = position === 'single' || position === 'last',
  actions,
}: MessageBubbleProps): ReactNode {
  const { Attachment, FailedRow, Quote, Reactions } = { ...parts, ...useChatContext().slots }
  const messageSlot = useSlot('message', 'rpt-message')
  const bubbleSlot = useSlot('bubble', 'rpt-bubble')
  if (message.message_type === 'system')
    return (
      <p className="rpt-system" data-slot="system-message" dir="auto">
        {message.content}
      </p>
    )
  const isLarge =
    !message.is_deleted && message.message_type === 'text' && !message.reply_to && isEmojiOnly(message.content)
  const isImage = !message.is_deleted && message.message_type === 'image'
  return (
    <div
      {...messageSlot}
      data-slot="message"
      data-own={isOwn || undefined}
      data-position={position}
      data-status={message.state}
      data-deleted={message.is_deleted || undefined}
    >
      {showAvatar && (
        <span className="rpt-message-avatar">
          {(position === 'last' || position === 'single') && <Avatar person={message.sender} size={32} />}
        </span>
      )}
      <div className="rpt-message-body">
        <div
          {...bubbleSlot}
          data-slot="bubble"
          data-large={isLarge || undefined}
          data-image={isImage || undefined}
        >
          {message.is_pinned && !message.is_deleted && <Pin className="rpt-bubble-pin" aria-hidden size={14} />}
          {message.reply_to && !message.is_deleted && <Quote quoted={message.reply_to} onOpen={actions?.jumpTo} />}
          {!message.is_deleted && message.message_type !== 'text' && (
            <Attachment message={message} onOpenImage={actions?.showImage} />
          )}
          <Content message={message} isOwn={isOwn} showTimestamp={showTimestamp} actions={actions} />
        </div>
        {!message.is_deleted && message.reactions.length > 0 && (
          <Reactions message={message} onReact={actions?.react} />
        )}
        {message.state === 'failed' && <FailedRow message={message} actions={actions} />}
      </div>
    </div>
  )
}

interface ContentProps {
  message: TimelineMessage
  isOwn: boolean
  showTimestamp: boolean
  actions: MessageActions | undefined
}

function Content({ message, isOwn, showTimestamp, actions }: ContentProps): ReactNode {
  const { strings, slots } = useChatContext()
  const MessageMeta = slots.MessageMeta ?? parts.MessageMeta
  // A message that was just written is not folded, because its author wants to see all of it.
  const [isFolded, setFolded] = useState(() => isLong(message.content) && !(isOwn && message.state === 'sending'))
  const meta = (
    <MessageMeta message={message} isOwn={isOwn} showTimestamp={showTimestamp} onShowHistory={actions?.showHistory} />
  )

  if (message.is_deleted)
    return (
      <p className="rpt-text rpt-text-deleted">
        <Trash2 aria-hidden size={14} />
        {isOwn ? strings.youDeleted : strings.messageDeleted}
        {meta}
      </p>
    )
  if (message.message_type !== 'text' && !message.content) return <div className="rpt-attachment-meta">{meta}</div>
  return (
    <>
      <div className="rpt-text" dir="auto" data-folded={isFolded || undefined}>
        <MessageText text={message.content} />
        {!isFolded && meta}
      </div>
      {isLong(message.content) && (
        <div className="rpt-fold">
          <button
            type="button"
            className="rpt-text-button"
            aria-expanded={!isFolded}
            onClick={() => setFolded(!isFolded)}
          >
            {isFolded ? strings.showMore : strings.showLess}
          </button>
          {isFolded && meta}
        </div>
      )}
    </>
  )
}
