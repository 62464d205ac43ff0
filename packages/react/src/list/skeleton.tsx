'use client'

import { useEffect, useState, type ReactNode } from 'react'
import { useStrings } from '../context/chat-context'

/** The skeleton is shown only if loading takes longer than this. */
const SKELETON_AFTER_MS = 150

/** Returns true once the component has been mounted for `SKELETON_AFTER_MS`. */
export function useIsLate(): boolean {
  const [isLate, setLate] = useState(false)
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), SKELETON_AFTER_MS)
    return () => clearTimeout(timer)
  }, [])
  return isLate
}

/** The placeholder bubbles: the width in percent, and whether it is an own message. */
const BUBBLES = [
  [46, false],
  [30, false],
  [52, true],
  [38, false],
  [24, true],
  [44, true],
] as const

export function ListSkeleton({ label }: { label: string }): ReactNode {
  const isLate = useIsLate()
  return (
    <div
      className="rpt-skeleton-list"
      data-slot="skeleton"
      role="status"
      aria-label={label}
      data-late={isLate || undefined}
    >
      {BUBBLES.map(([width, isOwn], index) => (
        <div
          key={index}
          className="rpt-skeleton rpt-skeleton-bubble"
          data-own={isOwn || undefined}
          style={{ inlineSize: `${width}%` }}
        />
      ))}
    </div>
  )
}

/** Three rows of fixed height, shown while a page loads. */
export function PageSkeleton(): ReactNode {
  return (
    <div className="rpt-skeleton-page" data-slot="page-skeleton" aria-hidden="true">
      {BUBBLES.slice(0, 3).map(([width, isOwn], index) => (
        <div
          key={index}
          className="rpt-skeleton rpt-skeleton-bubble"
          data-own={isOwn || undefined}
          style={{ inlineSize: `${width}%` }}
        />
      ))}
    </div>
  )
}

export function PageError({ onRetry }: { onRetry: () => void }): ReactNode {
  const strings = useStrings()
  return (
    <div className="rpt-page-error" data-slot="page-error" role="alert">
      <span>{strings.couldNotLoad}</span>
      <button type="button" className="rpt-text-button" onClick={onRetry}>
        {strings.tryAgain}
      </button>
    </div>
  )
}
