'use client'

import { useCallback, useEffect, useRef, useState, type ReactNode } from 'react'

/** The region is emptied after this time. Otherwise screen readers skip a repeated text. */
const CLEAR_MS = 1000

/**
 * Renders one polite live region for the whole chat. The message list is not a live region, because
 * scrolling adds and removes rows, and a screen reader would read history aloud.
 */
export function useAnnouncer(): { announce: (text: string) => void; outlet: ReactNode } {
  const [text, setText] = useState('')
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)

  const announce = useCallback((next: string) => {
    if (typeof document !== 'undefined' && document.visibilityState === 'hidden') return
    clearTimeout(timer.current)
    setText(next)
    timer.current = setTimeout(() => setText(''), CLEAR_MS)
  }, [])
  useEffect(() => () => clearTimeout(timer.current), [])

  const outlet = (
    <div className="rpt-hidden" data-slot="announcer" role="status" aria-live="polite" aria-atomic="true">
      {text}
    </div>
  )
  return { announce, outlet }
}
