// Handles values that the user changes quickly, such as a reaction. One request per value runs at a
// time. If the user changes the value during a request, another request sends the latest value.

import { ok } from './errors'
import type { Result } from './types'

interface Wish {
  value: boolean
  outcome: Promise<Result<null>>
}

export class Wishes {
  readonly #wishes = new Map<string, Wish>()

  /** Calls `request` until it has sent the latest value for this key, or has failed. */
  wish(key: string, value: boolean, request: (value: boolean) => Promise<Result<unknown>>): Promise<Result<null>> {
    const running = this.#wishes.get(key)
    if (running) {
      running.value = value
      return running.outcome
    }
    const wish: Wish = { value, outcome: Promise.resolve(ok(null)) }
    this.#wishes.set(key, wish)
    wish.outcome = this.#run(wish, request).finally(() => this.#wishes.delete(key))
    return wish.outcome
  }

  async #run(wish: Wish, request: (value: boolean) => Promise<Result<unknown>>): Promise<Result<null>> {
    for (;;) {
      const { value } = wish
      const { error } = await request(value)
      if (error) return { data: null, error }
      if (wish.value === value) return ok(null)
    }
  }
}
