'use client'

import { useEffect, useInsertionEffect, useLayoutEffect, useRef, type RefObject } from 'react'

/** The value of the latest render, for callbacks and timers that must not start again. */
export function useLatest<T>(value: T): RefObject<T> {
  const ref = useRef(value)
  // Before all layout effects, so that these see the same value as the render.
  useInsertionEffect(() => {
    ref.current = value
  })
  return ref
}

/** `useLayoutEffect` without React 18's warning on a server. */
export const useBrowserLayoutEffect = typeof document === 'undefined' ? useEffect : useLayoutEffect
