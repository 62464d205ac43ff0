'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { useEffect, useMemo, useState, type RefObject } from 'react'
import { useLatest } from '../context/use-latest'

/** A list without a scroll event for this long has stopped. Not all browsers have `scrollend`. */
const STILL_MS = 200

/**
 * Holds back new messages while a finger scrolls through history. WebKit ignores a correction of
 * `scrollTop` until the movement has ended, so new rows are rendered only then. Meanwhile, the
 * button that leads to the newest message counts them.
 */
export function useHeldTail(
  scroller: RefObject<HTMLElement | null>,
  messages: readonly TimelineMessage[],
): readonly TimelineMessage[] {
  const [held, setHeld] = useState<string | null>(null)
  const latest = useLatest(messages)

  useEffect(() => {
    const element = scroller.current
    if (!element) return
    let isDown = false
    let timer: ReturnType<typeof setTimeout> | undefined
    const release = (): void => {
      if (!isDown) setHeld(null)
    }
    const soon = (): void => {
      clearTimeout(timer)
      timer = setTimeout(release, STILL_MS)
    }
    const down = (): void => {
      isDown = true
      // At the end, no correction is needed, because the browser keeps the end in view.
      if (element.scrollTop < -1) setHeld(latest.current.at(-1)?.key ?? null)
    }
    const up = (): void => {
      isDown = false
      soon()
    }
    element.addEventListener('touchstart', down, { passive: true })
    element.addEventListener('touchend', up, { passive: true })
    element.addEventListener('touchcancel', up, { passive: true })
    element.addEventListener('scroll', soon, { passive: true })
    return () => {
      clearTimeout(timer)
      element.removeEventListener('touchstart', down)
      element.removeEventListener('touchend', up)
      element.removeEventListener('touchcancel', up)
      element.removeEventListener('scroll', soon)
    }
  }, [scroller, latest])

  return useMemo(() => {
    if (held === null) return messages
    const at = messages.findLastIndex(({ key }) => key === held)
    const own = messages.findLastIndex((message, index) => index > at && message.isOwn)
    // The user's own new message is shown immediately, and so are all messages before it.
    return at < 0 || own >= 0 ? messages : messages.slice(0, at + 1)
  }, [messages, held])
}
