import type { TimelineMessage } from '@rapport-chat/client'
import type { PopupAnchor } from '../parts/popup'

/** The actions on a message. They are shared by the bubble, the toolbar, the menu and the keys. */
export interface MessageActions {
  react(message: TimelineMessage, emoji: string): void
  reply(message: TimelineMessage): void
  edit(message: TimelineMessage): void
  copy(message: TimelineMessage): void
  remove(message: TimelineMessage): void
  retry(message: TimelineMessage): void
  discard(message: TimelineMessage): void
  markUnread(message: TimelineMessage): void
  jumpTo(messageId: string): void
  showHistory(message: TimelineMessage): void
  showImage(message: TimelineMessage): void
  openMenu(message: TimelineMessage, anchor: PopupAnchor): void
  openReactions(message: TimelineMessage, anchor: PopupAnchor): void
  canEdit(message: TimelineMessage): boolean
  canReply: boolean
}

/** The reactions that are offered before the full picker. */
export const QUICK_REACTIONS = ['👍', '❤️', '😂', '😮', '😢', '🎉'] as const

/** Whether the message is stored and not deleted. */
export function isLive(message: TimelineMessage): boolean {
  return !message.is_deleted && Number.isFinite(message.seq)
}
