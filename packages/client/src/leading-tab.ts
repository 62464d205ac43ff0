// What a tab that follows asks of the tab that leads.

import type { Cancel, Clock } from './clock'
import { GATHER_MS } from './sync'

/** The tab that leads may close without answering. */
const ANSWER_TIMEOUT_MS = 10_000

export class LeadingTab {
  readonly #clock: Clock
  readonly #ask: () => void
  #cancelAsking: Cancel | null = null
  #waiting: (() => void)[] = []

  constructor(
    clock: Clock,
    ask: () => void,
  ) {
    this.#clock = clock
    this.#ask = ask
  }

  /** Asks for a `/sync`, once for all calls within a tenth of a second. */
  requestSoon(): void {
    this.#cancelAsking ??= this.#clock.after(GATHER_MS, () => {
      this.#cancelAsking = null
      this.#ask()
    })
  }

  /** Asks for a `/sync` and waits until it is done. */
  request(): Promise<void> {
    this.#ask()
    return new Promise((resolve) => {
      const cancel = this.#clock.after(ANSWER_TIMEOUT_MS, resolve)
      this.#waiting.push(() => {
        cancel()
        resolve()
      })
    })
  }

  /** The leading tab has carried out the request, or no tab leads any longer. */
  answered(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  stop(): void {
    this.#cancelAsking?.()
    this.#cancelAsking = null
    this.answered()
  }
}
