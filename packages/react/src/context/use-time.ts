'use client'

import { useMemo, useSyncExternalStore } from 'react'
import { timeFormat, type TimeFormat } from '../format/time'
import { useNavigationStrings } from './base-context'

const MINUTE_MS = 60_000

// All components share one timer. It checks every minute whether the day has changed.
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

const currentDay = (): number => new Date().setHours(0, 0, 0, 0)

/** Returns the start of the current day in the user's time zone. */
export function useToday(): Date {
  const day = useSyncExternalStore(subscribe, currentDay, () => 0)
  return useMemo(() => new Date(day), [day])
}

export function useTimeFormat(): TimeFormat {
  const strings = useNavigationStrings()
  return timeFormat(strings.locale, strings)
}
