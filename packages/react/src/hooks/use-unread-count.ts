'use client'

import type { Unread } from '@rapport-chat/client'
import { useChatState } from '../context/use-store'

/**
 * Returns the numbers of unread messages. `total` and `mentions` exclude muted and archived
 * conversations; `byConversation` includes them.
 */
export function useUnreadCount(): Unread {
  return useChatState((state) => state.unread)
}
