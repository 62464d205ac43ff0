// The requests of a following tab to the leading tab.

import type { Cancel, Clock } from './clock'
import { GATHER_MS } from './sync'

/** The maximum wait for the leading tab, which may be closed before it replies. */
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

  /** Requests one `/sync` for all calls within a tenth of a second. */
  requestSoon(): void {
    this.#cancelAsking ??= this.#clock.after(GATHER_MS, () => {
      this.#cancelAsking = null
      this.#ask()
    })
  }

  /** Requests a `/sync` and waits until it is done. */
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

  /** Ends all waits when the leading tab has completed a `/sync`, or when this tab stops. */
  answered(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  stop(): void {
    this.#cancelAsking?.()
    this.#cancelAsking = null
    this.answered()
  }
}
