'use client'

import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'

/** Larger counts are shown as "99+". */
const MAX_SHOWN = 99

export interface UnreadBadgeProps {
  count: number
  /** A dot instead of the number, as in a collapsed sidebar. */
  isDot?: boolean
  isMuted?: boolean
}

/** Nothing is rendered for 0. The name is in the element that carries the badge. */
export function UnreadBadge({ count, isDot = false, isMuted = false }: UnreadBadgeProps): ReactNode {
  const { locale } = useStrings()
  if (count <= 0) return null
  const text = count > MAX_SHOWN ? `${MAX_SHOWN.toLocaleString(locale)}+` : count.toLocaleString(locale)
  return (
    // A new key restarts the animation when the number changes.
    <span key={text} className="rpt-badge" data-slot="unread-badge" data-dot={isDot || undefined} data-muted={isMuted || undefined} aria-hidden="true">
      {isDot ? '' : text}
    </span>
  )
}
