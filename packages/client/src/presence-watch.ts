// Keeps the presence of the displayed users current.

import type { Result } from './types'
import type * as wire from './wire'

/** Maximum users per request. The route refuses more. */
const MAX_IDS = 200

export class PresenceWatch {
  readonly #fetch: (userIds: readonly string[]) => Promise<Result<wire.Presence[]>>
  readonly #onPresence: (row: wire.Presence) => void
  readonly #counts = new Map<string, number>()
  #wasLive = false

  constructor(
    fetch: (userIds: readonly string[]) => Promise<Result<wire.Presence[]>>,
    onPresence: (row: wire.Presence) => void,
  ) {
    this.#fetch = fetch
    this.#onPresence = onPresence
  }

  /**
   * Loads the presence of these users now and after each reconnect, until the returned function is
   * called.
   */
  watch(userIds: readonly string[]): () => void {
    const added = userIds.filter((id) => !this.#counts.has(id))
    for (const id of userIds) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1)
    void this.load(added)
    return () => {
      for (const id of userIds) {
        const count = (this.#counts.get(id) ?? 0) - 1
        if (count > 0) this.#counts.set(id, count)
        else this.#counts.delete(id)
      }
    }
  }

  /**
   * Loads the presence of these users, with one request at a time. Stops at the first failure,
   * because the user may have signed out. The next reconnect loads all presence again.
   */
  async load(userIds: readonly string[]): Promise<void> {
    for (let at = 0; at < userIds.length; at += MAX_IDS) {
      const { data } = await this.#fetch(userIds.slice(at, at + MAX_IDS))
      if (!data) return
      data.forEach(this.#onPresence)
    }
  }

  /**
   * Loads the presence of the watched users and, after a reconnect, of the users in the list of
   * conversations (`partners`), because `/sync` contains no changes of presence.
   */
  refresh(partners: readonly string[]): void {
    // On the first connection, the conversations' rows contain the current status of the partners.
    const ids = new Set([...this.#counts.keys(), ...(this.#wasLive ? partners : [])])
    this.#wasLive = true
    void this.load([...ids])
  }
}
