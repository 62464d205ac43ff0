'use client'

import { useEffect, type ReactNode } from 'react'
import { useNavigationStrings } from '../context/base-context'
import { useUnreadCount } from '../hooks/use-unread-count'
import { UnreadBadge } from '../parts/unread-badge'

/** The unread count for a navigation item. `isDot` shows a dot, for a collapsed sidebar. */
export function MessagesBadge({ isDot = false }: { isDot?: boolean }): ReactNode {
  const { total } = useUnreadCount()
  return <UnreadBadge count={total} isDot={isDot} />
}

/** Returns the accessible name of a navigation item, such as "Messages, 3 unread". */
export function useMessagesLabel(): string {
  const strings = useNavigationStrings()
  const { total } = useUnreadCount()
  return strings.messagesUnread(total)
}

interface BadgeNavigator {
  setAppBadge?: (count: number) => Promise<void>
  clearAppBadge?: () => Promise<void>
}

/** Shows the count as "(3)" before the title of the page, and on the icon of an installed app. */
export function useUnreadTitle(): void {
  const { total } = useUnreadCount()
  useEffect(() => {
    const badge = navigator as BadgeNavigator
    // Browsers reject the badge for pages that are not installed. The rejection is ignored.
    void (total > 0 ? badge.setAppBadge?.(total) : badge.clearAppBadge?.())?.catch(() => undefined)
    if (total === 0) return
    const before = document.title
    const after = `(${total}) ${before.replace(/^\(\d+\) /u, '')}`
    document.title = after
    return () => {
      // If the page has set another title in the meantime, that title stays.
      if (document.title === after) document.title = before.replace(/^\(\d+\) /u, '')
    }
  }, [total])
}
