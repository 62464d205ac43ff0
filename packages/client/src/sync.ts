// Follows the changes of conversations, receipts and messages since a cursor. `/sync` returns every
// change. The socket and other tabs deliver many changes earlier, but nothing depends on them.

import { backoff, CONNECT_PAUSES_MS } from './backoff'
import type { Cancel, Clock } from './clock'
import { chatError, isTransient, ok, refused } from './errors'
import type { Input } from './inputs'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

/** Milliseconds for which calls of `requestSoon` are combined into one request. */
export const GATHER_MS = 100

/** Seconds for which the server holds a request while nothing changes: the server's maximum. */
const LONG_POLL_S = 25

export interface SyncSettings {
  clock: Clock
  fetch(since: string | undefined, options: { wait?: number; signal?: AbortSignal }): Promise<Result<wire.SyncPage>>
  apply(input: Input): void
  /** Called when a request fails, except with `resync_required` or `aborted`. It may be retried. */
  onError(error: ChatError): void
}

export class SyncEngine {
  readonly #settings: SyncSettings
  #cursor: string | undefined
  /** Whether the cursor belongs to a first load that has more pages. */
  #isLoading = false
  #running: Promise<Result<null>> | null = null
  /** The request after the running one, shared by all calls of `request` in the meantime. */
  #next: Promise<Result<null>> | null = null
  #isStopped = true
  #cancelGathering: Cancel | null = null
  #abort = new AbortController()

  constructor(
    settings: SyncSettings,
    cursor?: string,
  ) {
    this.#settings = settings
    this.#cursor = cursor
  }

  get position(): string | undefined {
    return this.#cursor
  }

  /**
   * Continues from a cursor of another tab or of the stored state. The caller applies the changes
   * up to it.
   */
  moveTo(cursor: string): void {
    this.#cursor = cursor
  }

  /** Forgets the cursor, so that the next request loads everything again. */
  reset(): void {
    this.#cursor = undefined
    this.#isLoading = false
  }

  start(): void {
    if (!this.#isStopped) return
    this.#isStopped = false
    this.#abort = new AbortController()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelGathering?.()
    this.#cancelGathering = null
    this.#abort.abort()
  }

  /**
   * Resolves when all changes made before the call have been applied. A request that is already
   * running may not contain them, so all calls during it share one further request.
   */
  request(): Promise<Result<null>> {
    if (!this.#running) return this.#run()
    this.#next ??= this.#running.then(() => {
      this.#next = null
      return this.#run()
    })
    return this.#next
  }

  /** Sends one request for all calls within `GATHER_MS`. */
  requestSoon(): void {
    if (this.#isStopped) return
    this.#cancelGathering ??= this.#settings.clock.after(GATHER_MS, () => {
      this.#cancelGathering = null
      void this.request()
    })
  }

  /** Sends one request that waits for a change. */
  async poll(signal: AbortSignal): Promise<Result<null>> {
    const { error } = await this.#fetchPage({ wait: LONG_POLL_S, signal }, true)
    if (error) return this.#recover(error)
    return ok(null)
  }

  #run(): Promise<Result<null>> {
    this.#running = this.#follow().finally(() => (this.#running = null))
    return this.#running
  }

  /** Requests pages until there are no more changes. Returns a failure instead of retrying. */
  async attempt(signal: AbortSignal): Promise<Result<null>> {
    for (;;) {
      const { data, error } = await this.#fetchPage({ signal }, false)
      if (data && !data.has_more) return ok(null)
      const outcome = error ? this.#recover(error) : ok(null)
      if (outcome.error) return outcome
    }
  }

  async #follow(): Promise<Result<null>> {
    const { clock } = this.#settings
    for (let failures = 1; ; failures += 1) {
      if (this.#isStopped) return refused(chatError('aborted', 'The client was stopped.'))
      const outcome = await this.attempt(this.#abort.signal)
      const { error } = outcome
      if (!error || !isTransient(error)) return outcome
      const ms = error.retryAfter === null ? backoff(clock, CONNECT_PAUSES_MS, failures) : error.retryAfter * 1_000
      await this.#pause(ms)
    }
  }

  async #fetchPage(
    options: { wait?: number; signal: AbortSignal },
    isLive: boolean,
  ): Promise<Result<wire.SyncPage>> {
    const since = this.#cursor
    const result = await this.#settings.fetch(since, options)
    // A page for an outdated cursor is skipped: another tab moved on, or everything was forgotten.
    if (result.data && since === this.#cursor) this.#accept(result.data, isLive)
    return result
  }

  #accept(page: wire.SyncPage, isLive: boolean): void {
    const isFirstLoad = this.#cursor === undefined || this.#isLoading
    this.#isLoading = isFirstLoad && page.has_more
    this.#cursor = page.cursor
    this.#settings.apply({ type: 'synced', page, isFirstLoad, isLive })
  }

  /** On `resync_required`, forgets everything, so that it is loaded again. Returns other errors. */
  #recover(error: ChatError): Result<null> {
    if (error.code === 'resync_required') {
      this.reset()
      this.#settings.apply({ type: 'forget' })
      return ok(null)
    }
    if (error.code !== 'aborted') this.#settings.onError(error)
    return refused(error)
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#settings.clock.after(ms, resolve)
      this.#abort.signal.onabort = () => {
        cancel()
        resolve()
      }
    })
  }
}
