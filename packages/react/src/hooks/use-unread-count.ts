'use client'

import type { Unread } from '@rapport-chat/client'
import { useChatState } from '../context/use-store'

/**
 * Returns the unread counts. `total` and `mentions` exclude muted and archived conversations;
 * `byConversation` includes them.
 */
export function useUnreadCount(): Unread {
  return useChatState((state) => state.unread)
}
