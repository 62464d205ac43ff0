'use client'

import { useEffect, useSyncExternalStore, type ComponentType, type ReactNode } from 'react'

export interface LazyComponent<P> {
  /** Renders nothing until the component is loaded. */
  readonly View: (props: P) => ReactNode
  /** Loads the component early, for example when the pointer reaches the button that opens it. */
  readonly preload: () => void
}

/**
 * Wraps a component that is loaded when it is first mounted. Unlike with `lazy`, a failure throws
 * no error into the application's tree: the component stays invisible, and loading is retried when
 * it is mounted again.
 */
export function lazyComponent<P extends object>(load: () => Promise<ComponentType<P>>): LazyComponent<P> {
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
