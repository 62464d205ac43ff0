import type { Clock } from './clock'

/** Pauses between attempts to connect, in milliseconds; the last one repeats. */
export const CONNECT_PAUSES_MS = [1_000, 2_000, 5_000, 10_000, 30_000] as const

/** Pauses between attempts to send. Longer at the end, because they go on for a day. */
export const SEND_PAUSES_MS = [1_000, 2_000, 5_000, 15_000, 60_000, 300_000] as const

/** So that the clients of a restarted server do not return at the same moment. */
const JITTER = 0.2

/** The pause before the next attempt after this many failures (from 1), ±20 %. */
export function backoff(clock: Clock, pauses: readonly number[], failures: number): number {
  const ms = pauses[Math.min(failures, pauses.length) - 1] ?? 0
  return Math.round(ms * (1 - JITTER + 2 * JITTER * clock.random()))
}
