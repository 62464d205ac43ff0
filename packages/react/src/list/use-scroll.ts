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
  /** Mounts one more of the loaded chunks, or null if all are mounted. */
  mountMore: (() => void) | null
}

export interface Scroll {
  /** The pill that leads down is shown. */
  pill: boolean
  /** Messages of others below the view that were not seen yet. */
  newCount: number
  /** The day of the highest row, while scrolling. */
  day: string | null
  followPill(): void
  toBottom(): void
  toNewest(): void
  reveal(row: Element): void
}

/** A page is loaded when the end of what is loaded is this many heights away. */
const LOAD_VIEWPORTS = 2

/** From this many heights above the end on, the pill leads back. */
const PILL_VIEWPORTS = 1.5

/** The day stays visible this long after the last movement. */
const DAY_MS = 1200

/** How long a message that was jumped to is marked. */
const HIGHLIGHT_MS = 1600

/** The line "New messages" is placed at this share of the height. */
const UNREAD_SHARE = 1 / 3

/** Where a conversation was left, for the same visit of the page. The client lives as long. */
const places = new WeakMap<ConversationClient, { key: string; offset: number; jump: number }>()

/** The chunk from which on everything has to be mounted, because the list opens or jumps there. */
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
      // A part that is empty, but not the beginning.
      if (wantsOlder) void conversation.loadOlder()
      return
    }
    const { fromBottom, fromTop, viewport } = keep.position()
    atEnd.current = keep.isNearBottom() && !hasNewer
    const lastSeq = lastStoredSeq(latest.current)
    // The unread line marks messages that are unread on opening; the pill counts later ones.
    // The pill does not count pages that are loaded on the way from an old message to the end.
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
      const text = keep.topRow()?.getAttribute('data-day') ?? null
      setDay(keep.position().fromTop > 0 && text ? text : null)
      clearTimeout(timer)
      timer = setTimeout(() => setDay(null), DAY_MS)
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

  // Jumps, and where the list opens.
  useBrowserLayoutEffect(() => {
    const keep = keeper.current
    if (!keep || timeline.messages.length === 0) return
    const { jump } = timeline
    if (!didOpen.current) {
      didOpen.current = true
      const place = places.get(conversation)
      const element = place && place.jump === (jump?.number ?? -1) ? rowOf(rows, place.key) : null
      if (place && element) {
        doneJump.current = jump?.number ?? null
        keep.restore(element, place.offset)
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
      const line = rows.current?.querySelector('[data-slot="unread-line"]')
      if (
        line &&
        rows.current &&
        scroller.current &&
        line.getBoundingClientRect().top < scroller.current.getBoundingClientRect().top
      )
        keep.place(line, UNREAD_SHARE)
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
      setTimeout(() => {
        state.setHighlighted(null)
        watcher.pin(null)
      }, HIGHLIGHT_MS)
    })
  }, [timeline, conversation, watcher, state, rows, scroller])

  // One's own message leads to the end. Others do only if the end is in view.
  const newest = timeline.messages.at(-1)
  const newestKey = newest?.key
  const isOwnNew = newest?.isOwn === true && (newest.state === 'sending' || newest.state === 'pending')
  const lastKey = useRef(newestKey)
  useBrowserLayoutEffect(() => {
    const isNew = newestKey !== lastKey.current
    lastKey.current = newestKey
    if (isNew && (isOwnNew || (atEnd.current && !latest.current.hasNewer))) keeper.current?.followToBottom()
  }, [newestKey, isOwnNew, latest])

  // The loaded messages determine what is new and whether more is needed, even without a scroll. In the
  // next frame, because measuring at once would lay out the page twice.
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
    // A second press leads to the end.
    seenSeq.current = lastStoredSeq(timeline)
    watcher.pin(chunkOf(first.seq))
    requestAnimationFrame(() => {
      const element = rowOf(rows, first.key)
      if (element) keeper.current?.place(element, UNREAD_SHARE)
      watcher.pin(null)
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
