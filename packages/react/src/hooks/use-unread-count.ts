'use client'

import type { Unread } from '@rapport-chat/client'
import { useChatState } from '../context/use-store'

/** Unread messages. `total` leaves out muted and archived conversations. */
export function useUnreadCount(): Unread {
  return useChatState((state) => state.unread)
}
