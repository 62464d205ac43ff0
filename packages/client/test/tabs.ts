// Locks and channels as browsers have them, for several tabs in one test.

import type { Channel, Locks } from '../src/tabs'

interface Request {
  hold: () => Promise<void>
  resolve: () => void
  reject: (cause: unknown) => void
}

/** The locks of one browser. */
export class FakeLocks implements Locks {
  private holder: Request | null = null
  private waiting: Request[] = []

  request(
    _name: string,
    { steal = false, signal }: { steal?: boolean; signal?: AbortSignal },
    hold: () => Promise<void>,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = { hold, resolve, reject }
      if (steal) {
        this.holder?.reject(new DOMException('stolen', 'AbortError'))
        return this.grant(request)
      }
      this.waiting.push(request)
      signal?.addEventListener('abort', () => {
        if (!this.waiting.includes(request)) return
        this.waiting = this.waiting.filter((other) => other !== request)
        reject(new DOMException('aborted', 'AbortError'))
      })
      this.next()
    })
  }

  private next(): void {
    if (this.holder) return
    const request = this.waiting.shift()
    if (request) this.grant(request)
  }

  private grant(request: Request): void {
    this.holder = request
    // Browsers also grant locks asynchronously.
    void Promise.resolve()
      .then(() => request.hold())
      .then(() => {
        request.resolve()
        if (this.holder !== request) return
        this.holder = null
        this.next()
      })
  }
}

/** The channels of one browser. */
export class FakeChannels {
  private readonly receivers = new Map<symbol, (data: unknown) => void>()

  open = (receive: (data: unknown) => void): Channel => {
    const key = Symbol('channel')
    this.receivers.set(key, receive)
    return {
      post: (message) => {
        const copy: unknown = structuredClone(message)
        for (const [other, deliver] of this.receivers)
          if (other !== key) void Promise.resolve().then(() => this.receivers.has(other) && deliver(copy))
      },
      close: () => this.receivers.delete(key),
    }
  }
}
