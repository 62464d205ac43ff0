// Time and chance, so that tests decide both.

export type Cancel = () => void

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /** Calls the function once, after this many milliseconds. */
  after(ms: number, run: () => void): Cancel
  /** From 0 to 1, exclusive. */
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
