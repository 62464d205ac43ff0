import type { Page, PageSignal } from './page'

/** The minimum time between reports of activity, because a moving pointer fires many events. */
const ACTIVITY_MS = 10_000

/** The maximum wait for a frame. A page that becomes hidden while it waits receives no frame. */
const FRAME_TIMEOUT_MS = 100

/** Returns the page of a browser, or null outside a browser. */
export function browserPage(): Page | null {
  if (typeof window === 'undefined' || typeof document === 'undefined') return null
  return {
    isVisible: () => document.visibilityState === 'visible',
    hasFocus: () => document.hasFocus(),
    isOnline: () => navigator.onLine,
    listen(listener) {
      const abort = new AbortController()
      const on = (target: EventTarget, names: string, call: (event: Event) => void) => {
        for (const name of names.split(' '))
          target.addEventListener(name, call, { signal: abort.signal, passive: true })
      }
      const emit = (signal: PageSignal) => () => listener(signal)
      let activeAt = -Infinity
      on(document, 'visibilitychange', emit('attention'))
      on(window, 'focus blur', emit('attention'))
      on(window, 'online offline', emit('network'))
      on(window, 'pagehide', emit('leave'))
      on(window, 'pageshow', (event) => {
        if ((event as PageTransitionEvent).persisted) listener('return')
      })
      on(window, 'pointermove pointerdown keydown touchstart wheel', ({ timeStamp }) => {
        if (timeStamp - activeAt < ACTIVITY_MS) return
        activeAt = timeStamp
        listener('activity')
      })
      return () => abort.abort()
    },
    painted: () =>
      new Promise((resolve) => {
        if (document.visibilityState === 'hidden') return resolve()
        const timer = setTimeout(resolve, FRAME_TIMEOUT_MS)
        requestAnimationFrame(() => {
          clearTimeout(timer)
          // The frame is painted between this task and the next one.
          setTimeout(resolve)
        })
      }),
  }
}
