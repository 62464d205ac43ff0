// Time and random numbers, so that tests can control both.

export type Cancel = () => void

export interface Clock {
  /** Returns the time in milliseconds since 1970. */
  now(): number
  /** Calls the function once, after this many milliseconds. */
  after(ms: number, run: () => void): Cancel
  /** Returns a number from 0 to 1, excluding 1. */
  random(): number
}

export function systemClock(now: () => number = Date.now): Clock {
  return {
    now,
    after(ms, run) {
      const timer = setTimeout(run, ms)
      return () => clearTimeout(timer)
    },
    random: Math.random,
  }
}
