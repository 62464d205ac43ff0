'use client'

import { useSyncExternalStore } from 'react'

const QUERY = '(pointer: coarse) and (hover: none)'

function subscribe(listener: () => void): () => void {
  if (typeof matchMedia === 'undefined') return () => undefined
  const query = matchMedia(QUERY)
  query.addEventListener('change', listener)
  return () => query.removeEventListener('change', listener)
}

/** Whether the main input is touch. In that case Enter starts a new line, and the button sends. */
export function useIsTouch(): boolean {
  return useSyncExternalStore(
    subscribe,
    () => typeof matchMedia !== 'undefined' && matchMedia(QUERY).matches,
    () => false,
  )
}
