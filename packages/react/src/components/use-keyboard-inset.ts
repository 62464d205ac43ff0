'use client'

import { useEffect, type RefObject } from 'react'

/**
 * Sets `--rpt-keyboard` to the height that the on-screen keyboard covers. The height is 0 in
 * browsers that shrink the page for the keyboard (`interactive-widget=resizes-content`). Safari on
 * phones does not shrink the page.
 */
export function useKeyboardInset(root: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const viewport = typeof visualViewport === 'undefined' ? null : visualViewport
    const element = root.current
    if (!viewport || !element) return
    const update = (): void => {
      // Pinch zoom also makes the viewport smaller, so no keyboard is assumed on a zoomed page.
      const covered = viewport.scale === 1 ? innerHeight - viewport.height - viewport.offsetTop : 0
      element.style.setProperty('--rpt-keyboard', `${Math.max(0, Math.round(covered))}px`)
    }
    viewport.addEventListener('resize', update)
    viewport.addEventListener('scroll', update)
    return () => {
      viewport.removeEventListener('resize', update)
      viewport.removeEventListener('scroll', update)
    }
  }, [root])
}
