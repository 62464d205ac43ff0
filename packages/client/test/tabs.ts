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

/** The channels of one browser, which all have the same name. */
export class FakeChannels {
  private readonly channels = new Set<Channel>()

  open = (): Channel => {
    const channel: Channel = {
      onmessage: null,
      postMessage: (message) => {
        const event = { data: structuredClone(message) } as MessageEvent
        for (const other of this.channels) if (other !== channel) void this.deliver(other, event)
      },
      close: () => this.channels.delete(channel),
    }
    this.channels.add(channel)
    return channel
  }

  /** Freezes the tab of a channel, which then receives nothing. */
  freeze(channel: Channel): void {
    this.channels.delete(channel)
  }

  private async deliver(channel: Channel, event: MessageEvent): Promise<void> {
    await Promise.resolve()
    if (this.channels.has(channel)) channel.onmessage?.(event)
  }
}
