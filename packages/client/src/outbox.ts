// The messages that the server has not stored yet.
//
// Every message has its own id, so a message that is sent twice is stored once. Within a
// conversation, one message is in flight at a time, which preserves the order of the messages.

import { backoff, SEND_PAUSES_MS } from './backoff'
import type { Cancel, Clock } from './clock'
import { chatError, isSignedOut, isTransient } from './errors'
import type { ChatStorage } from './storage'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

/**
 * Maximum messages sent per second. By default, the server allows 5 per second on average, and 120
 * per minute.
 */
const MAX_PER_SECOND = 4

/** A message that could not be sent for a day is no longer retried automatically. */
const MAX_AGE_MS = 24 * 60 * 60 * 1_000

export interface Outgoing {
  /** Also the message's `client_message_id`. */
  readonly key: string
  readonly conversationId: string
  readonly content: string
  readonly messageType: 'text' | 'image' | 'file'
  readonly replyToId: string | null
  readonly metadata: wire.Message['metadata']
  readonly file: { url: string; name: string; size: number; type: string } | null
  /** Milliseconds since 1970. Unique within a tab, so that it also orders the messages. */
  readonly createdAt: number
  readonly state: 'pending' | 'sending' | 'failed'
  readonly error: ChatError | null
}

export type NewOutgoing = Omit<Outgoing, 'createdAt' | 'state' | 'error'>

export interface OutboxSettings {
  clock: Clock
  storage: ChatStorage
  send(message: Outgoing): Promise<Result<wire.Message>>
  /** The messages of this conversation changed. */
  onChange(conversationId: string): void
  onSent(message: Outgoing, stored: wire.Message): void
  onFailed(message: Outgoing, error: ChatError): void
}

/** The pause of a conversation after failures in a row. `until` is in milliseconds since 1970. */
interface Waiting {
  failures: number
  until: number
}

export class Outbox {
  readonly #settings: OutboxSettings
  #messages: readonly Outgoing[] = []
  readonly #waiting = new Map<string, Waiting>()
  #sentAt: number[] = []
  #pausedUntil = 0
  #lastCreatedAt = 0
  #isRunning = false
  #cancelTimer: Cancel = () => {}

  constructor(settings: OutboxSettings) {
    this.#settings = settings
  }

  get size(): number {
    return this.#messages.length
  }

  of(conversationId: string): readonly Outgoing[] {
    return this.#messages.filter((message) => message.conversationId === conversationId)
  }

  /** Adds the messages that earlier pages of this user did not send. */
  async restore(): Promise<void> {
    const stored = await this.#settings.storage.all<Outgoing>('outbox')
    const known = new Set(this.#messages.map(({ key }) => key))
    const restored = stored.map(([, message]) => message).filter(({ key }) => !known.has(key))
    if (restored.length === 0) return
    this.#messages = [...this.#messages, ...restored].sort((a, b) => a.createdAt - b.createdAt)
    for (const { conversationId } of restored) this.#settings.onChange(conversationId)
    this.#drain()
  }

  add(message: NewOutgoing): void {
    this.#queue(message)
  }

  retry(key: string): void {
    const message = this.#messages.find((other) => other.key === key && other.state === 'failed')
    if (!message) return
    this.#waiting.delete(message.conversationId)
    // The message gets a new time, so that it can be retried for another day.
    this.#queue(message)
  }

  /** Removes a message that the user discarded, or that this tab or another one has sent. */
  discard(key: string): void {
    const message = this.#messages.find((other) => other.key === key)
    if (!message) return
    this.#messages = this.#messages.filter((other) => other !== message)
    void this.#settings.storage.delete('outbox', key)
    this.#settings.onChange(message.conversationId)
  }

  /** Removes all messages when the user signs out. Responses that arrive later have no effect. */
  forget(): void {
    this.#messages = []
  }

  /**
   * Starts sending. `isReachable` means that the server responds again, which ends the pauses after
   * failures, but not the pause of a rate limit.
   */
  resume(isReachable = false): void {
    this.#isRunning = true
    if (isReachable) this.#waiting.clear()
    this.#drain()
  }

  /** Sends nothing until `resume`. Messages can still be added. */
  pause(): void {
    this.#isRunning = false
    this.#cancelTimer()
  }

  /** Adds a message at the end, or moves it there. */
  #queue(message: NewOutgoing): void {
    this.#lastCreatedAt = Math.max(this.#settings.clock.now(), this.#lastCreatedAt + 1)
    const queued: Outgoing = { ...message, createdAt: this.#lastCreatedAt, state: 'pending', error: null }
    this.#messages = [...this.#messages.filter(({ key }) => key !== queued.key), queued]
    void this.#settings.storage.put('outbox', queued.key, queued)
    this.#settings.onChange(queued.conversationId)
    this.#drain()
  }

  #drain(): void {
    this.#cancelTimer()
    if (!this.#isRunning) return
    const { clock } = this.#settings
    const now = clock.now()
    let next = Infinity
    const seen = new Set<string>()
    for (const message of this.#messages) {
      const { conversationId, state } = message
      // Failed messages wait for the user, and do not hold up others.
      if (state === 'failed' || seen.has(conversationId)) continue
      seen.add(conversationId)
      if (state === 'sending') continue
      const at = Math.max(this.#waiting.get(conversationId)?.until ?? 0, this.#pausedUntil, this.#nextSlot(now))
      if (at > now) next = Math.min(next, at)
      else void this.#send(message, now)
    }
    if (next !== Infinity) this.#cancelTimer = clock.after(next - now, () => this.#drain())
  }

  /** Returns when the next message can be sent without exceeding the rate. */
  #nextSlot(now: number): number {
    this.#sentAt = this.#sentAt.filter((time) => time > now - 1_000)
    const first = this.#sentAt[this.#sentAt.length - MAX_PER_SECOND]
    return first === undefined ? now : first + 1_000
  }

  async #send(message: Outgoing, now: number): Promise<void> {
    if (now - message.createdAt > MAX_AGE_MS)
      return this.#fail(message, chatError('expired', 'The message could not be sent for a day.'))
    this.#sentAt.push(now)
    const sending = this.#replace({ ...message, state: 'sending' })
    const { data, error } = await this.#settings.send(sending)
    if (!this.#messages.includes(sending)) return
    if (data) {
      this.#waiting.delete(message.conversationId)
      this.#settings.onSent(sending, data)
      this.discard(message.key)
      this.#drain()
    } else if (isSignedOut(error)) {
      // `resume` is called when the user has signed in again.
      this.#replace({ ...sending, state: 'pending' })
      this.pause()
    } else if (isTransient(error)) {
      this.#wait(sending, error)
      this.#drain()
    } else {
      this.#fail(sending, error)
    }
  }

  #wait(message: Outgoing, error: ChatError): void {
    const { clock } = this.#settings
    const now = clock.now()
    if (error.retryAfter !== null) {
      // The pause applies to all conversations, because the rate is limited per user.
      this.#pausedUntil = now + error.retryAfter * 1_000
    } else {
      const failures = (this.#waiting.get(message.conversationId)?.failures ?? 0) + 1
      this.#waiting.set(message.conversationId, { failures, until: now + backoff(clock, SEND_PAUSES_MS, failures) })
    }
    this.#replace({ ...message, state: 'pending' })
  }

  #fail(message: Outgoing, error: ChatError): void {
    const failed = this.#replace({ ...message, state: 'failed', error })
    void this.#settings.storage.put('outbox', failed.key, failed)
    this.#settings.onFailed(failed, error)
    this.#drain()
  }

  #replace(message: Outgoing): Outgoing {
    this.#messages = this.#messages.map((other) => (other.key === message.key ? message : other))
    this.#settings.onChange(message.conversationId)
    return message
  }
}
