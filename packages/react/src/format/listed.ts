import type { Conversation } from '@rapport-chat/client'

/**
 * Whether the conversation is in the user's list. A direct conversation that another user opened is
 * in the list only if it contains a message.
 */
export function isListed({ kind, last_seq, created_by }: Conversation, userId: string): boolean {
  return kind !== 'direct' || last_seq > 0 || created_by === userId
}
