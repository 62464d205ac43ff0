'use client'

import type { ConversationClient, Timeline } from '@rapport-chat/client'
import { useEffect, useRef, useState, type RefObject } from 'react'
import { useBrowserLayoutEffect, useLatest } from '../context/use-latest'
import type { ChunkWatcher } from './message-chunk'
import { chunkOf } from './mounted-chunks'
import type { RowState } from './row-state'
import { ScrollKeeper } from './scroll-keeper'

interface ScrollOptions {
  scroller: RefObject<HTMLElement | null>
  rows: RefObject<HTMLDivElement | null>
  conversation: ConversationClient
  timeline: Timeline
  state: RowState
  watcher: ChunkWatcher
  /**
   * Mounts one more chunk: consecutive rows that are mounted together (`rows.ts`). Null if all
   * loaded chunks are mounted.
   */
  mountMore: (() => void) | null
}

export interface Scroll {
  /** Whether the pill is shown: the button that leads to the first new or to the newest message. */
  pill: boolean
  /** The number of unseen messages of others below the view. */
  newCount: number
  /**
   * The day of the highest row in view. Null if the list has not scrolled recently, or if the
   * separator of that day is in view.
   */
  day: string | null
  followPill(): void
  toBottom(): void
  toNewest(): void
  reveal(row: Element): void
}

/** The next page is loaded when an end of the loaded rows is within this many viewport heights. */
const LOAD_VIEWPORTS = 2

/** The pill is shown when the reader is more than this many viewport heights above the end. */
const PILL_VIEWPORTS = 1.5

/** The day stays visible this long after the last movement. */
const DAY_SHOWN_MS = 1200

/** How long the target of a jump is highlighted. */
const HIGHLIGHT_MS = 1600

/** The line "New messages" is placed at this fraction of the viewport's height. */
const UNREAD_SHARE = 1 / 3

/**
 * The position at which each conversation was left, and the number of the last jump before that (-1
 * if there was none). Lost when the page is closed or reloaded.
 */
const places = new WeakMap<ConversationClient, { key: string; offset: number; jump: number }>()

/**
 * Returns the id of the oldest chunk that the list must show: the one with the row at which the
 * reader left the conversation, or with the target of a jump. Returns null if there is neither.
 */
export function neededChunk(conversation: ConversationClient, { jump, messages }: Timeline): number | null {
  const place = places.get(conversation)
  const left = place && messages.find(({ key }) => key === place.key)
  const wanted = [left?.seq, jump && jump.target.at !== 'newest' ? jump.target.seq : undefined].filter(
    (seq): seq is number => seq !== undefined && Number.isFinite(seq),
  )
  return wanted.length > 0 ? chunkOf(Math.min(...wanted)) : null
}

export function useScroll({ scroller, rows, conversation, timeline, state, watcher, mountMore }: ScrollOptions): Scroll {
  const keeper = useRef<ScrollKeeper | null>(null)
  const latest = useLatest(timeline)
  const atEnd = useRef(true)
  const seenSeq = useRef(-1)
  const hadNewer = useRef(false)
  const didOpen = useRef(false)
  const doneJump = useRef<number | null>(null)
  const [pill, setPill] = useState(false)
  const [newCount, setNewCount] = useState(0)
  const [day, setDay] = useState<string | null>(null)

  const update = useLatest(() => {
    const keep = keeper.current
    const { messages, hasOlder, hasNewer, isLoadingOlder, isLoadingNewer, pageError, status } = latest.current
    if (!keep) return
    const wantsOlder = status === 'ready' && hasOlder && !isLoadingOlder && !pageError
    if (messages.length === 0) {
      // The displayed part is empty, but older messages exist.
      if (wantsOlder) void conversation.loadOlder()
      return
    }
    const { fromBottom, fromTop, viewport } = keep.position()
    atEnd.current = keep.isNearBottom() && !hasNewer
    const lastSeq = lastStoredSeq(latest.current)
    // The unread line marks messages that are unread on opening; the pill counts later ones. It
    // does not count the messages of newer pages that load while the reader scrolls from an old
    // message to the end.
    if (atEnd.current || seenSeq.current < 0 || hadNewer.current) seenSeq.current = lastSeq
    hadNewer.current = hasNewer
    setNewCount(countNew(latest.current, seenSeq.current))
    setPill(hasNewer || fromBottom > viewport * PILL_VIEWPORTS || (!atEnd.current && lastSeq > seenSeq.current))
    const seq = keep.lowestSeq()
    conversation.setVisible(
      atEnd.current ? { seq: lastSeq, isAtEnd: true } : seq === null ? null : { seq, isAtEnd: false },
    )
    if (status !== 'ready' || viewport === 0) return
    if (fromTop < viewport * LOAD_VIEWPORTS) {
      if (mountMore) mountMore()
      else if (wantsOlder) void conversation.loadOlder()
    }
    if (hasNewer && !isLoadingNewer && !pageError && fromBottom < viewport * LOAD_VIEWPORTS)
      void conversation.loadNewer()
  })

  useBrowserLayoutEffect(() => {
    const outer = scroller.current
    const inner = rows.current
    const chunks = inner?.querySelector<HTMLElement>('[data-slot="chunks"]')
    if (!outer || !inner || !chunks || typeof ResizeObserver === 'undefined') return
    const keep = new ScrollKeeper(outer, inner, chunks)
    keeper.current = keep
    let timer: ReturnType<typeof setTimeout> | undefined
    let lastTop = outer.scrollTop
    const off = keep.onMove(() => {
      update.current()
      if (Math.abs(outer.scrollTop - lastTop) < 2) return
      lastTop = outer.scrollTop
      setDay(keep.position().fromTop > 0 ? keep.topDay() : null)
      clearTimeout(timer)
      timer = setTimeout(() => setDay(null), DAY_SHOWN_MS)
    })
    return () => {
      off()
      clearTimeout(timer)
      const place = keep.remember()
      if (place) places.set(conversation, { ...place, jump: latest.current.jump?.number ?? -1 })
      else places.delete(conversation)
      keep.stop()
      keeper.current = null
      didOpen.current = false
      conversation.setVisible(null)
    }
  }, [scroller, rows, conversation, latest, update])

  // Moves to the position at which the list opens, and to the target of each jump.
  useBrowserLayoutEffect(() => {
    const keep = keeper.current
    if (!keep || timeline.messages.length === 0) return
    const { jump } = timeline
    if (!didOpen.current) {
      didOpen.current = true
      const place = places.get(conversation)
      // If there was another jump since then, its target is displayed instead.
      const element = place && (!jump || place.jump === jump.number) ? rowOf(rows, place.key) : null
      if (place && element) {
        doneJump.current = jump?.number ?? null
        keep.restore(element, place.offset)
        atEnd.current = false
        return
      }
    }
    if (!jump || jump.number === doneJump.current) return
    if (jump.target.at === 'newest') {
      doneJump.current = jump.number
      keep.toBottom()
      return
    }
    const { seq } = jump.target
    const message = timeline.messages.find((one) => one.seq >= seq)
    if (!message || !Number.isFinite(message.seq)) return
    doneJump.current = jump.number
    if (jump.target.at === 'first_unread') {
      const toLine = (): boolean => {
        const line = rows.current?.querySelector('[data-slot="unread-line"]')
        if (line && !keep.isInView(line)) {
          keep.place(line, UNREAD_SHARE)
          // Otherwise, a message that arrives before the next update would scroll to the end.
          atEnd.current = keep.isNearBottom()
        }
        return line != null
      }
      if (toLine()) return
      // The line is in a chunk that is an empty box.
      watcher.pin(chunkOf(message.seq))
      requestAnimationFrame(toLine)
      return
    }
    watcher.pin(chunkOf(message.seq))
    // The pinned chunk renders in the next commit.
    requestAnimationFrame(() => {
      const element = rowOf(rows, message.key)
      if (!element) return
      const box = element.getBoundingClientRect()
      const height = scroller.current?.clientHeight ?? 0
      keep.place(element, Math.max(0, (height - box.height) / 2 / Math.max(1, height)))
      state.setActive(message.key)
      element.focus({ preventScroll: true })
      state.setHighlighted(message.key)
      setTimeout(() => state.setHighlighted(null), HIGHLIGHT_MS)
    })
  }, [timeline, conversation, watcher, state, rows, scroller])

  // Scrolls to the end when the user sends a message. For a message of another user, scrolls only
  // if the reader is near the end.
  const newest = timeline.messages.at(-1)
  const newestKey = newest?.key
  const isOwnNew = newest?.isOwn === true && (newest.state === 'sending' || newest.state === 'pending')
  const lastKey = useRef(newestKey)
  useBrowserLayoutEffect(() => {
    const isNew = newestKey !== lastKey.current
    lastKey.current = newestKey
    if (isNew && (isOwnNew || (atEnd.current && !latest.current.hasNewer))) keeper.current?.followToBottom()
  }, [newestKey, isOwnNew, latest])

  // The loaded messages determine what is new and whether more is needed, even without a scroll.
  // The update runs in the next frame, because measuring at once would lay out the page twice.
  useEffect(() => {
    const frame = requestAnimationFrame(() => update.current())
    return () => cancelAnimationFrame(frame)
  }, [timeline, update])

  const toBottom = (): void => keeper.current?.toBottom()
  const toNewest = (): void => {
    if (timeline.hasNewer) void conversation.jumpToNewest()
    else toBottom()
  }
  const followPill = (): void => {
    const first = newCount > 0 && timeline.messages.find((message) => !message.isOwn && message.seq > seenSeq.current)
    if (!first || timeline.hasNewer) return toNewest()
    // All messages now count as seen, so a second press leads to the end.
    seenSeq.current = lastStoredSeq(timeline)
    watcher.pin(chunkOf(first.seq))
    requestAnimationFrame(() => {
      const element = rowOf(rows, first.key)
      if (element) keeper.current?.place(element, UNREAD_SHARE)
      update.current()
    })
  }
  return { pill, newCount, day, followPill, toBottom, toNewest, reveal: (element) => keeper.current?.reveal(element) }
}

function rowOf(rows: RefObject<HTMLElement | null>, key: string): HTMLElement | null {
  return rows.current?.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? null
}

function lastStoredSeq({ messages }: Timeline): number {
  for (let i = messages.length - 1; i >= 0; i--) {
    const seq = messages[i]?.seq ?? 0
    if (Number.isFinite(seq)) return seq
  }
  return -1
}

function countNew({ messages }: Timeline, seen: number): number {
  let count = 0
  for (let i = messages.length - 1; i >= 0; i--) {
    const message = messages[i]
    if (!message || message.seq <= seen) break
    if (!message.isOwn && Number.isFinite(message.seq) && !message.is_deleted) count++
  }
  return count
}
