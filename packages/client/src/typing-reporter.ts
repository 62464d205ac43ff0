// Reports that the user is typing. Loaded with the actions.

import type { Cancel, Clock } from './clock'

/** The interval of reports while the user types. The server forgets a report after six seconds. */
const REPEAT_MS = 3_000

/** Typing ends this long after the last key. */
const STOP_MS = 5_000

/** Reports that the user types in one conversation. */
export class TypingReporter {
  readonly #clock: Clock
  readonly #report: (isTyping: boolean) => void
  #isTyping = false
  #reportedAt = 0
  #cancelStop: Cancel = () => {}

  constructor(
    clock: Clock,
    report: (isTyping: boolean) => void,
  ) {
    this.#clock = clock
    this.#report = report
  }

  /** Called with the changed text. White space alone does not count as typing. */
  input(text: string): void {
    if (text.trim() === '') return this.stop()
    const now = this.#clock.now()
    if (!this.#isTyping || now - this.#reportedAt >= REPEAT_MS) {
      this.#isTyping = true
      this.#reportedAt = now
      this.#report(true)
    }
    this.#cancelStop()
    this.#cancelStop = this.#clock.after(STOP_MS, () => this.stop())
  }

  stop(): void {
    this.#cancelStop()
    if (!this.#isTyping) return
    this.#isTyping = false
    this.#report(false)
  }
}
