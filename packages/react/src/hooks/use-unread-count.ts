'use client'

import type { Unread } from '@rapport-chat/client'
import { useChatState } from '../context/use-store'

/** Returns the numbers of unread messages. `total` excludes muted and archived conversations. */
export function useUnreadCount(): Unread {
  return useChatState((state) => state.unread)
}
