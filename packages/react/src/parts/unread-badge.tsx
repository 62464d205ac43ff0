'use client'

import type { ReactNode } from 'react'
import { useNavigationStrings } from '../context/base-context'

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
  const { locale } = useNavigationStrings()
  if (count <= 0) return null
  const text = count > MAX_SHOWN ? `${MAX_SHOWN.toLocaleString(locale)}+` : count.toLocaleString(locale)
  // The number is drawn by the style sheet: the name of the element around it says it in words, and
  // a name must contain the text that it labels. A new key restarts the animation.
  return (
    <span
      key={text}
      className="rpt-badge"
      data-slot="unread-badge"
      data-text={isDot ? '' : text}
      data-dot={isDot || undefined}
      data-muted={isMuted || undefined}
      aria-hidden="true"
    />
  )
}
