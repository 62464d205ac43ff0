'use client'

import { useEffect, useInsertionEffect, useLayoutEffect, useRef, type RefObject } from 'react'

/**
 * Returns a ref to the value of the latest render, for effects that need the value but must not run
 * again when it changes.
 */
export function useLatest<T>(value: T): RefObject<T> {
  const ref = useRef(value)
  // Insertion effects run before all layout effects, which therefore see the value of this render.
  useInsertionEffect(() => {
    ref.current = value
  })
  return ref
}

/** `useLayoutEffect`, but without the warning that React 18 logs on a server. */
export const useBrowserLayoutEffect = typeof document === 'undefined' ? useEffect : useLayoutEffect
