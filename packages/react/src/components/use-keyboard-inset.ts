'use client'

import { useEffect, type RefObject } from 'react'

/**
 * Sets `--rpt-keyboard` to the height that the on-screen keyboard covers. Browsers that shrink the
 * page for it (`interactive-widget=resizes-content`) cover nothing; Safari on phones does not.
 */
export function useKeyboardInset(root: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const viewport = typeof visualViewport === 'undefined' ? null : visualViewport
    const element = root.current
    if (!viewport || !element) return
    const update = (): void => {
      // A page that is zoomed by the fingers has a smaller viewport without any keyboard.
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
