'use client'

import { memo, useEffect, useRef, useState, useSyncExternalStore, type ReactNode } from 'react'
import type { MessageActions } from './message-actions'
import { MessageRow } from './message-row'
import type { Chunk } from './rows'
import type { RowState } from './row-state'

/**
 * A chunk within this many viewport heights of the viewport has its rows in the document. `rows.ts`
 * divides the messages into chunks.
 */
export const KEPT_VIEWPORTS = 2

/** Observes which chunks are near the viewport, with one observer for all chunks of a list. */
export class ChunkWatcher {
  private readonly callbacks = new Map<Element, (entry: IntersectionObserverEntry) => void>()
  private observer: IntersectionObserver | null = null
  private pinned: number | null = null
  private readonly listeners = new Set<() => void>()

  start(root: Element): () => void {
    if (typeof IntersectionObserver === 'undefined') return () => undefined
    this.observer = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) this.callbacks.get(entry.target)?.(entry)
      },
      { root, rootMargin: `${KEPT_VIEWPORTS * 100}% 0px` },
    )
    for (const element of this.callbacks.keys()) this.observer.observe(element)
    return () => {
      this.observer?.disconnect()
      this.observer = null
    }
  }

  watch(element: Element, callback: (entry: IntersectionObserverEntry) => void): () => void {
    this.callbacks.set(element, callback)
    this.observer?.observe(element)
    return () => {
      this.callbacks.delete(element)
      this.observer?.unobserve(element)
    }
  }

  /**
   * Renders the rows of this chunk even if it is far away, so that a jump finds them. They stay
   * until the next jump, because an empty box would be painted until the chunk is known to be near.
   */
  pin(id: number): void {
    this.pinned = id
    for (const listener of this.listeners) listener()
  }

  isPinned(id: number): boolean {
    return this.pinned === id
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

interface MessageChunkProps {
  chunk: Chunk
  watcher: ChunkWatcher
  state: RowState
  actions: MessageActions
  showAvatar: boolean
}

/** The rows of a chunk, or an empty box of their height while they are far from the viewport. */
export const MessageChunk = memo(function MessageChunk({
  chunk,
  watcher,
  state,
  actions,
  showAvatar,
}: MessageChunkProps): ReactNode {
  const element = useRef<HTMLDivElement>(null)
  const [height, setHeight] = useState<number | null>(null)
  const isPinned = useSyncExternalStore(
    watcher.subscribe,
    () => watcher.isPinned(chunk.id),
    () => false,
  )

  useEffect(() => {
    const box = element.current
    if (!box) return
    return watcher.watch(box, (entry) => {
      if (entry.isIntersecting) setHeight(null)
      // A chunk that contains the focus keeps its rows. Otherwise, the focus would be lost.
      else if (!box.contains(document.activeElement) && entry.boundingClientRect.height > 0)
        setHeight(entry.boundingClientRect.height)
    })
  }, [watcher])

  const isBoxed = height !== null && !isPinned
  return (
    <div
      ref={element}
      className="rpt-chunk"
      role="presentation"
      data-chunk={chunk.id}
      style={isBoxed ? { blockSize: height } : undefined}
    >
      {!isBoxed &&
        chunk.rows.map((row) => (
          <MessageRow key={row.message.key} {...row} state={state} actions={actions} showAvatar={showAvatar} />
        ))}
    </div>
  )
})
