'use client'

import { useLayoutEffect, useRef, type KeyboardEvent, type ReactNode } from 'react'
import { useLatest } from '../context/use-latest'

/** A point on the screen, or the element that opened the popup. */
export type PopupAnchor = Element | { readonly x: number; readonly y: number }

export interface PopupProps {
  anchor: PopupAnchor
  onClose: () => void
  label: string
  role: 'menu' | 'dialog'
  className?: string
  /** Called instead of returning the focus to its former element, which may no longer exist. */
  onRestoreFocus?: () => void
  onKeyDown?: (event: KeyboardEvent<HTMLDivElement>) => void
  children: ReactNode
}

/** The space between the popup and its anchor, and the minimum space to the window's edges. */
const GAP_PX = 6

/**
 * A floating panel in the browser's top layer. It keeps its place in the document, so it inherits
 * the theme, the direction and the reading order of the elements around it.
 */
export function Popup({
  anchor,
  onClose,
  label,
  role,
  className = '',
  onRestoreFocus,
  onKeyDown,
  children,
}: PopupProps): ReactNode {
  const panel = useRef<HTMLDivElement>(null)
  const callbacks = useLatest({ onClose, onRestoreFocus })

  useLayoutEffect(() => {
    const latest = () => callbacks.current
    const element = panel.current
    if (!element) return
    const before = document.activeElement
    // jsdom and older browsers have no top layer. The panel is then an ordinary fixed box.
    element.showPopover?.()
    place(element, anchor)

    const outside = (event: Event): void => {
      const target = event.target as Node
      if (element.contains(target)) return
      // The button that opened the popup handles its own click.
      if (anchor instanceof Element && anchor.contains(target)) return
      callbacks.current.onClose()
    }
    const again = (): void => place(element, anchor)
    document.addEventListener('pointerdown', outside, true)
    window.addEventListener('resize', again)
    // Content that loads late, such as emoji, changes the size of the popup.
    const observer = typeof ResizeObserver === 'undefined' ? null : new ResizeObserver(again)
    observer?.observe(element)
    return () => {
      document.removeEventListener('pointerdown', outside, true)
      window.removeEventListener('resize', again)
      observer?.disconnect()
      const hadFocus = element.contains(document.activeElement) || document.activeElement === document.body
      if (!hadFocus) return
      // Uses the callback of the latest render, because the row to focus may have changed.
      const { onRestoreFocus: restore } = latest()
      if (restore) restore()
      else if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true })
    }
  }, [anchor, callbacks])

  return (
    <div
      ref={panel}
      className={`rpt-popup ${className}`}
      data-slot="popup"
      popover="manual"
      role={role}
      aria-label={label}
      onKeyDown={(event) => {
        // Keys pressed inside the panel must not reach the row or the composer around it.
        event.stopPropagation()
        if (event.key === 'Escape') {
          event.preventDefault()
          onClose()
          return
        }
        onKeyDown?.(event)
      }}
    >
      {children}
    </div>
  )
}

function place(element: HTMLElement, anchor: PopupAnchor): void {
  const target = anchor instanceof Element ? anchor.getBoundingClientRect() : new DOMRect(anchor.x, anchor.y, 0, 0)
  const { offsetWidth: width, offsetHeight: height } = element
  const { clientWidth, clientHeight } = document.documentElement
  const isRtl = getComputedStyle(element).direction === 'rtl'
  const below = target.bottom + GAP_PX
  const above = target.top - GAP_PX - height
  const top = below + height <= clientHeight - GAP_PX || above < GAP_PX ? below : above
  const start = isRtl ? target.right - width : target.left
  const end = isRtl ? target.left : target.right - width
  const fits = (left: number): boolean => left >= GAP_PX && left + width <= clientWidth - GAP_PX
  const left = fits(start) ? start : end
  const inside = (value: number, size: number, room: number): number =>
    Math.max(GAP_PX, Math.min(value, room - size - GAP_PX))
  element.style.setProperty('--rpt-x', `${inside(left, width, clientWidth)}px`)
  element.style.setProperty('--rpt-y', `${inside(top, height, clientHeight)}px`)
}
