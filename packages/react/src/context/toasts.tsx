'use client'

import { useCallback, useEffect, useLayoutEffect, useRef, useState, type ReactNode } from 'react'
import { IconButton } from '../parts/icon-button'
import { CloseIcon } from '../parts/icons'
import type { NavigationStrings } from '../strings/navigation-en'
import type { ToastMessage } from './base-context'
import { useLatest } from './use-latest'

/** How long a toast is shown: long enough to read a sentence and to reach "Undo" by keyboard. */
const TOAST_MS = 8000

/** The maximum number of toasts shown. A further toast removes the oldest one. */
const MAX_TOASTS = 3

interface Shown extends ToastMessage {
  readonly id: number
}

export function useToasts(strings: NavigationStrings): { toast: (message: ToastMessage) => void; outlet: ReactNode } {
  const [shown, setShown] = useState<readonly Shown[]>([])
  const number = useRef(0)

  const toast = useCallback((message: ToastMessage) => {
    const id = ++number.current
    setShown((old) => [...old.filter((other) => other.text !== message.text), { ...message, id }].slice(-MAX_TOASTS))
  }, [])
  const close = useCallback((id: number) => setShown((old) => old.filter((other) => other.id !== id)), [])

  const outlet = (
    <section className="rpt-toasts" data-slot="toasts" aria-label={strings.notifications} hidden={shown.length === 0}>
      {shown.map((message) => (
        <Toast key={message.id} message={message} strings={strings} onClose={() => close(message.id)} />
      ))}
    </section>
  )
  return { toast, outlet }
}

function Toast({
  message,
  strings,
  onClose,
}: {
  message: Shown
  strings: NavigationStrings
  onClose: () => void
}): ReactNode {
  const [isHeld, setHeld] = useState(false)
  const close = useLatest(onClose)
  const element = useRef<HTMLDivElement>(null)
  /** The element that had the focus before the toast. It receives the focus again afterwards. */
  const before = useRef<Element | null>(null)
  useLayoutEffect(() => {
    const toast = element.current
    return () => {
      if (toast?.contains(document.activeElement) && before.current instanceof HTMLElement)
        before.current.focus({ preventScroll: true })
    }
  }, [])

  useEffect(() => {
    if (isHeld) return
    const timer = setTimeout(() => close.current(), TOAST_MS)
    return () => clearTimeout(timer)
  }, [isHeld, close])

  const { action } = message
  return (
    <div
      ref={element}
      className="rpt-toast"
      data-kind={message.kind ?? 'info'}
      role={message.kind === 'error' ? 'alert' : 'status'}
      onPointerEnter={() => setHeld(true)}
      onPointerLeave={() => setHeld(false)}
      onFocus={(event) => {
        setHeld(true)
        if (!event.currentTarget.contains(event.relatedTarget)) before.current = event.relatedTarget
      }}
      onBlur={() => setHeld(false)}
    >
      <span className="rpt-toast-text">{message.text}</span>
      {action && (
        <button
          type="button"
          className="rpt-toast-action"
          onClick={() => {
            action.run()
            onClose()
          }}
        >
          {action.label}
        </button>
      )}
      <IconButton label={strings.close} size="small" onClick={onClose}>
        <CloseIcon size={16} />
      </IconButton>
    </div>
  )
}
