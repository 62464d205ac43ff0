import type { Conversation } from '@rapport-chat/client'

export function isUnread(conversation: Conversation): boolean {
  return conversation.unread_count > 0 || conversation.marked_unread
}
