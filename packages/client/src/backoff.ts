import type { Clock } from './clock'

/** Pauses between attempts to connect, in milliseconds. The last one is repeated. */
export const CONNECT_PAUSES_MS = [1_000, 2_000, 5_000, 10_000, 30_000] as const

/**
 * Pauses between attempts to send, in milliseconds. The last ones are long, because attempts
 * continue for a day.
 */
export const SEND_PAUSES_MS = [1_000, 2_000, 5_000, 15_000, 60_000, 300_000] as const

/** The random share of a pause, so that not all clients of a restarted server return at once. */
const JITTER = 0.2

/** Returns the pause in milliseconds after this many failures (at least 1), varied by ±20 %. */
export function backoff(clock: Clock, pauses: readonly number[], failures: number): number {
  const ms = pauses[Math.min(failures, pauses.length) - 1] ?? 0
  return Math.round(ms * (1 - JITTER + 2 * JITTER * clock.random()))
}
