'use client'

import { useEffect, useSyncExternalStore, type ComponentType, type ReactNode } from 'react'

export interface Part<P> {
  /** Renders nothing until it is loaded. */
  readonly View: (props: P) => ReactNode
  /** Loads it before it is rendered, such as when the pointer reaches the button that opens it. */
  readonly preload: () => void
}

/**
 * A component that is loaded when it is first rendered. Unlike `lazy`, a failure throws nothing into
 * the host's tree: the part stays invisible, and the next time it is rendered it is loaded again.
 */
export function part<P extends object>(load: () => Promise<ComponentType<P>>): Part<P> {
  let loaded: ComponentType<P> | null = null
  let isLoading = false
  const listeners = new Set<() => void>()

  const preload = (): void => {
    if (loaded || isLoading) return
    isLoading = true
    load()
      .then(
        (component) => {
          loaded = component
          for (const listener of listeners) listener()
        },
        () => undefined,
      )
      .finally(() => (isLoading = false))
  }
  const subscribe = (listener: () => void) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  const current = () => loaded

  function View(props: P): ReactNode {
    const Loaded = useSyncExternalStore(subscribe, current, current)
    useEffect(preload, [])
    return Loaded && <Loaded {...props} />
  }
  return { View, preload }
}
