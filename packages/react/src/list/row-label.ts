import type { TimelineMessage } from '@rapport-chat/client'
import { previewText } from '../components/message/quote'
import { displayName } from '../format/names'
import { inline } from '../format/text'
import type { ChatStrings } from '../strings/en'
import type { TimeFormat } from '../format/time'

/** Describes a row for screen readers, including what is shown only by position and colour. */
export function rowLabel(message: TimelineMessage, strings: ChatStrings, format: TimeFormat, now: Date): string {
  const parts = [message.isOwn ? strings.you : displayName(message.sender, strings)]
  if (message.reply_to) parts.push(strings.replyingTo(previewText(message.reply_to, strings)))
  parts.push(previewText(message, strings))
  if (message.is_edited && !message.is_deleted) parts.push(strings.edited)
  if (message.is_pinned) parts.push(strings.pinned)
  parts.push(format.moment(new Date(message.created_at), now))
  if (message.isOwn && !message.is_deleted) parts.push(strings.stateMessage[message.state])
  if (message.reactions.length > 0) {
    const reactions = message.reactions.map(({ emoji, count }) => `${inline(emoji)} ${count}`)
    parts.push(strings.reactionsList(reactions.join(' ')))
  }
  return strings.rowLabel(parts)
}
