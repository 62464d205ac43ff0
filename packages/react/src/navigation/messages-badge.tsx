'use client'

import { useEffect, type ReactNode } from 'react'
import { useNavigationStrings } from '../context/base-context'
import { useUnreadCount } from '../hooks/use-unread-count'
import { UnreadBadge } from '../parts/unread-badge'

/** The unread count for a navigation item. `isDot`: for a collapsed sidebar. */
export function MessagesBadge({ isDot = false }: { isDot?: boolean }): ReactNode {
  const { total } = useUnreadCount()
  return <UnreadBadge count={total} isDot={isDot} />
}

/** The name of a navigation item, such as "Messages, 3 unread". */
export function useMessagesLabel(): string {
  const strings = useNavigationStrings()
  const { total } = useUnreadCount()
  return strings.messagesUnread(total)
}

interface BadgeNavigator {
  setAppBadge?: (count: number) => Promise<void>
  clearAppBadge?: () => Promise<void>
}

/** Puts "(3)" before the title of the page, and the count on the icon of an installed app. */
export function useUnreadTitle(): void {
  const { total } = useUnreadCount()
  useEffect(() => {
    const badge = navigator as BadgeNavigator
    // Browsers refuse the badge for pages that are not installed. That is no error here.
    void (total > 0 ? badge.setAppBadge?.(total) : badge.clearAppBadge?.())?.catch(() => undefined)
    if (total === 0) return
    const before = document.title
    const after = `(${total}) ${before.replace(/^\(\d+\) /u, '')}`
    document.title = after
    return () => {
      // A page that has set its own title in the meantime keeps it.
      if (document.title === after) document.title = before.replace(/^\(\d+\) /u, '')
    }
  }, [total])
}
