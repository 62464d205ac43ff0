import type { Conversation } from '@rapport-chat/client'

/**
 * Whether the conversation is in the user's list. Somebody who only opened a conversation with the
 * user, and has written nothing, is not shown to them.
 */
export function isListed({ kind, last_seq, created_by }: Conversation, userId: string): boolean {
  return kind !== 'direct' || last_seq > 0 || created_by === userId
}
