// Tracks which other users are typing.

import type { Cancel, Clock } from './clock'
import type { Typing } from './types'

/** The other users who are typing. Each entry expires, because the last report may get lost. */
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

  received(conversationId: string, userId: string, isTyping = false, expiresInMs = 0): void {
    const key = `${conversationId} ${userId}`
    this.#expiries.get(key)?.()
    this.#expiries.delete(key)
    if (isTyping)
      this.#expiries.set(
        key,
        this.#clock.after(expiresInMs, () => this.received(conversationId, userId)),
      )
    const before = this.#typing[conversationId] ?? []
    if (before.includes(userId) === isTyping) return
    const users = isTyping ? [...before, userId] : before.filter((id) => id !== userId)
    const { [conversationId]: _, ...others } = this.#typing
    this.#typing = users.length > 0 ? { ...others, [conversationId]: users } : others
    this.#onChange(this.#typing)
  }

  /** Clears all typing when the connection is lost, because its end would not be received. */
  clear(): void {
    this.#expiries.forEach((cancel) => cancel())
    this.#expiries.clear()
    if (Object.keys(this.#typing).length === 0) return
    this.#typing = {}
    this.#onChange(this.#typing)
  }
}
