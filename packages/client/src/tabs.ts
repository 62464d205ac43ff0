// One tab of a browser has the connection: the leading tab, which holds the lock of this user. It
// passes what it receives to the other tabs. They send their own requests and messages.

import type { Cancel, Clock } from './clock'
import type { Input } from './inputs'
import type { Page } from './page'
import type { Me } from './types'
import type { ReceiptPositions } from './receipts'
import type * as wire from './wire'

/** The version of `TabMessage`. Tabs with different versions do not share a connection. */
const VERSION = 2

/**
 * A leading tab that is silent for this long is replaced, because the browser may have frozen it.
 */
const LEADER_SILENCE_MS = 15_000

/** The state that a new tab or a new page starts with. */
export interface Snapshot {
  cursor: string
  conversations: readonly wire.Conversation[]
  receipts: readonly ReceiptPositions[]
  me: Me
  /** Whether the list of conversations is not completely loaded. */
  hasMore: boolean
}

export type TabMessage =
  | { type: 'input'; input: Input; cursor: string | undefined }
  | { type: 'hello' }
  | { type: 'snapshot'; snapshot: Snapshot }
  /** A following tab requests a `/sync`. The reply, `synced`, reports that it was done. */
  | { type: 'sync' }
  | { type: 'synced' }
  /** A visible tab asks whether the leading tab responds and is visible. The reply is `pong`. */
  | { type: 'ping' }
  | { type: 'pong'; isVisible: boolean }
  /** The user is active in the sending tab. */
  | { type: 'activity' }
  /** The user requested a reconnect. */
  | { type: 'reconnect' }
  /** The message with this key was sent. */
  | { type: 'done'; key: string }
  | { type: 'sign_out' }

/** The part of `BroadcastChannel` that is used. */
export interface Channel {
  onmessage: ((event: MessageEvent) => void) | null
  postMessage(message: unknown): void
  close(): void
}

/** The part of `navigator.locks` that is used. */
export interface Locks {
  request(name: string, options: { steal?: boolean; signal?: AbortSignal }, hold: () => Promise<void>): Promise<void>
}

export interface TabsSettings {
  name: string
  clock: Clock
  page: Page
  /**
   * Null if tabs do not share a connection or the browser has no locks. This tab then always leads.
   */
  locks: Locks | null
  /** Null if the browser has no `BroadcastChannel`. */
  openChannel: ((name: string) => Channel) | null
  onLead(): void
  onFollow(): void
  onMessage(message: TabMessage): void
}

export class Tabs {
  readonly #settings: TabsSettings
  #isLeading = false
  #release: () => void = () => {}
  #waiting: AbortController | null = null
  #cancelPing: Cancel = () => {}
  #stopListening: Cancel = () => {}
  #isStarted = false

  #channel: Channel | null = null

  constructor(settings: TabsSettings) {
    this.#settings = settings
  }

  get leads(): boolean {
    return this.#isLeading
  }

  start(): void {
    if (this.#isStarted) return
    this.#isStarted = true
    const { name, locks, openChannel, page } = this.#settings
    this.#channel = openChannel?.(name) ?? null
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#received(data)
    if (!locks || !openChannel) return this.#lead()
    this.#stopListening = page.listen((signal) => {
      if (signal === 'attention' && page.isVisible()) this.#ping()
      if (signal === 'activity') this.post({ type: 'activity' })
    })
    this.#settings.onFollow()
    void this.#acquire(false)
    this.post({ type: 'hello' })
    this.#ping()
  }

  stop(): void {
    if (!this.#isStarted) return
    this.#isStarted = false
    this.#isLeading = false
    this.#stopListening()
    this.#cancelPing()
    this.#waiting?.abort()
    this.#release()
    this.#channel?.close()
    this.#channel = null
  }

  post(message: TabMessage): void {
    // Even tabs that do not share a connection sign out together.
    if (this.#settings.locks || message.type === 'sign_out') this.#channel?.postMessage({ version: VERSION, message })
  }

  #lead(): void {
    this.#isLeading = true
    this.#cancelPing()
    this.#settings.onLead()
  }

  /** Waits for the lock and holds it. `steal` takes it from the tab that has it. */
  async #acquire(steal: boolean): Promise<void> {
    const { locks, name } = this.#settings
    if (!locks) return
    this.#waiting?.abort()
    const waiting = new AbortController()
    this.#waiting = waiting
    try {
      // A signal cannot be combined with `steal`, which never waits.
      await locks.request(name, steal ? { steal } : { signal: waiting.signal }, () => {
        if (this.#waiting !== waiting || !this.#isStarted) return Promise.resolve()
        this.#lead()
        return new Promise((resolve) => (this.#release = resolve))
      })
    } catch {
      // Another tab took the lock, or this request is no longer needed.
      if (!this.#isStarted || this.#waiting !== waiting) return
      this.#isLeading = false
      this.#settings.onFollow()
      void this.#acquire(false)
    }
  }

  /** If this tab is visible, asks the leading tab for a reply, and takes over if there is none. */
  #ping(): void {
    const { clock, page } = this.#settings
    this.#cancelPing()
    if (this.#isLeading || !this.#isStarted || !page.isVisible()) return
    this.post({ type: 'ping' })
    this.#cancelPing = clock.after(LEADER_SILENCE_MS, () => {
      if (!this.#isLeading) void this.#acquire(true)
    })
  }

  #received(data: unknown): void {
    if (!this.#isStarted || typeof data !== 'object' || data === null) return
    const { version, message } = data as { version: number; message: TabMessage }
    if (version !== VERSION) {
      if (!this.#isLeading) this.#lead()
      return
    }
    if (message.type === 'ping') {
      if (this.#isLeading) this.post({ type: 'pong', isVisible: this.#settings.page.isVisible() })
      return
    }
    if (message.type === 'pong') return this.#answered(message.isVisible)
    this.#settings.onMessage(message)
  }

  #answered(isVisible: boolean): void {
    if (this.#isLeading) return
    this.#cancelPing()
    const { clock, page } = this.#settings
    if (!isVisible && page.isVisible()) return void this.#acquire(true)
    this.#cancelPing = clock.after(LEADER_SILENCE_MS, () => this.#ping())
  }
}
