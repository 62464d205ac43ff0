// Follows the changes since a cursor. Every other source of changes is only faster: what `/sync`
// returns is complete.

import { backoff, CONNECT_PAUSES_MS } from './backoff'
import type { Cancel, Clock } from './clock'
import { chatError, isTransient, ok, refused } from './errors'
import type { Input } from './inputs'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

/** Changes that were announced without their content are gathered for this long. */
export const GATHER_MS = 100

/** How long the server holds a request without changes: its maximum. */
const LONG_POLL_S = 25

export interface SyncSettings {
  clock: Clock
  fetch(since: string | undefined, options: { wait?: number; signal?: AbortSignal }): Promise<Result<wire.SyncPage>>
  apply(input: Input): void
  /** A request failed and is repeated, or was refused for good. */
  onError(error: ChatError): void
}

export class SyncEngine {
  readonly #settings: SyncSettings
  #cursor: string | undefined
  /** Whether the cursor belongs to a first load that has more pages. */
  #isLoading = false
  #running: Promise<Result<null>> | null = null
  #following: Promise<Result<null>> | null = null
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

  /** Another tab followed the changes up to here. */
  moveTo(cursor: string): void {
    this.#cursor = cursor
  }

  /** Everything was forgotten: the next request loads it again. */
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
   * Resolves when everything has been applied that had changed at the time of the call. A request
   * that is already running may have been answered before that, so calls during one share one more
   * behind it.
   */
  request(): Promise<Result<null>> {
    if (!this.#running) return this.#run()
    this.#following ??= this.#running.then(() => {
      this.#following = null
      return this.#run()
    })
    return this.#following
  }

  /** Requests once for all calls within a tenth of a second. */
  requestSoon(): void {
    if (this.#isStopped) return
    this.#cancelGathering ??= this.#settings.clock.after(GATHER_MS, () => {
      this.#cancelGathering = null
      void this.request()
    })
  }

  /** One request that waits for a change. */
  async poll(signal: AbortSignal): Promise<Result<null>> {
    const { error } = await this.#fetchPage({ wait: LONG_POLL_S, signal }, true)
    if (error) return this.#recover(error)
    return ok(null)
  }

  #run(): Promise<Result<null>> {
    this.#running = this.#follow().finally(() => (this.#running = null))
    return this.#running
  }

  /** Follows the changes once. A failure is returned, and not repeated. */
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
    // Skips a page for an outdated cursor: another tab moved on, or everything was forgotten.
    if (result.data && since === this.#cursor) this.#accept(result.data, isLive)
    return result
  }

  #accept(page: wire.SyncPage, isLive: boolean): void {
    const isFirstLoad = this.#cursor === undefined || this.#isLoading
    this.#isLoading = isFirstLoad && page.has_more
    this.#cursor = page.cursor
    this.#settings.apply({ type: 'synced', page, isFirstLoad, isLive })
  }

  /** After `resync_required` everything is loaded again. Other errors are returned. */
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
      this.#abort.signal.addEventListener(
        'abort',
        () => {
          cancel()
          resolve()
        },
        { once: true },
      )
    })
  }
}
