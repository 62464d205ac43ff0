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

/**
 * A badge with the number of unread messages. For 0, nothing is rendered. The accessible name of
 * the element that contains the badge must state the number.
 */
export function UnreadBadge({ count, isDot = false, isMuted = false }: UnreadBadgeProps): ReactNode {
  const { locale } = useNavigationStrings()
  if (count <= 0) return null
  const text = count > MAX_SHOWN ? `${MAX_SHOWN.toLocaleString(locale)}+` : count.toLocaleString(locale)
  // The style sheet draws the number, so that it is not text. As text, the number would have to
  // occur in the accessible name of the element around it, but that name states it in words. The
  // `key` changes with the text, which restarts the animation.
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
