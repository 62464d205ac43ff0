// Typing in both directions.

import type { Cancel, Clock } from './clock'
import type { Typing } from './types'

/** A report is repeated this often while the user types. The server forgets it after six seconds. */
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

  /** The text changed. White space alone is not typing. */
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

/** Who else is typing. Each entry ends by itself, because the last report may get lost. */
export class TypingWatch {
  readonly #clock: Clock
  readonly #onChange: (typing: Typing) => void
  #typing: Typing = {}
  readonly #expiries = new Map<string, Cancel>()

  constructor(
    clock: Clock,
    onChange: (typing: Typing) => void,
  ) {
    this.#clock = clock
    this.#onChange = onChange
  }

  received(conversationId: string, userId: string, isTyping: boolean, expiresInMs: number): void {
    const key = `${conversationId} ${userId}`
    this.#expiries.get(key)?.()
    this.#expiries.delete(key)
    if (isTyping)
      this.#expiries.set(
        key,
        this.#clock.after(expiresInMs, () => this.received(conversationId, userId, false, 0)),
      )
    const before = this.#typing[conversationId] ?? []
    if (before.includes(userId) === isTyping) return
    const users = isTyping ? [...before, userId] : before.filter((id) => id !== userId)
    const { [conversationId]: _, ...others } = this.#typing
    this.#typing = users.length > 0 ? { ...others, [conversationId]: users } : others
    this.#onChange(this.#typing)
  }

  /** The connection is lost: nothing would report that typing ended. */
  clear(): void {
    this.#expiries.forEach((cancel) => cancel())
    this.#expiries.clear()
    if (Object.keys(this.#typing).length === 0) return
    this.#typing = {}
    this.#onChange(this.#typing)
  }
}
