'use client'

import { useMemo, useSyncExternalStore } from 'react'
import { timeFormat, type TimeFormat } from '../format/time'
import { useNavigationStrings } from './base-context'

const MINUTE_MS = 60_000

// One timer for all components; the snapshot changes once a minute.
const listeners = new Set<() => void>()
let timer: ReturnType<typeof setInterval> | undefined

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  timer ??= setInterval(() => {
    for (const each of listeners) each()
  }, MINUTE_MS)
  return () => {
    listeners.delete(listener)
    if (listeners.size === 0) {
      clearInterval(timer)
      timer = undefined
    }
  }
}

function currentMinute(): number {
  return Math.floor(Date.now() / MINUTE_MS)
}

/** The current time, to the minute. */
export function useNow(): Date {
  const now = useSyncExternalStore(subscribe, currentMinute, () => 0)
  return useMemo(() => new Date(now * MINUTE_MS), [now])
}

export function useTimeFormat(): TimeFormat {
  const strings = useNavigationStrings()
  return timeFormat(strings.locale, strings)
}
