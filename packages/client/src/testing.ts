// For tests: a client whose time, page and socket the test controls.

import * as actions from './actions'
import type { ChatClient, ChatClientOptions } from './chat-client'
import { Client } from './client'
import type { Clock } from './clock'
import type { Environment } from './environment'
import type { Page, PageSignal } from './page'
import type { ChannelHandlers, ChatSocket, SocketHandlers } from './socket'
import type { ChatStorage, Shelf } from './storage'

export type { Channel, Locks } from './tabs'
export type { ChannelHandlers, ChatSocket, ChatStorage, Clock, Environment, Page, PageSignal, SocketHandlers }

/** A clock that stands still until the test advances it. */
export class FakeClock implements Clock {
  private time: number
  private timers: { at: number; run: () => void }[] = []

  constructor(start = Date.UTC(2026, 0, 1)) {
    this.time = start
  }

  now(): number {
    return this.time
  }

  after(ms: number, run: () => void): () => void {
    const timer = { at: this.time + ms, run }
    this.timers.push(timer)
    return () => {
      this.timers = this.timers.filter((other) => other !== timer)
    }
  }

  /** Returns the middle of the range, so that jitter changes nothing. */
  random(): number {
    return 0.5
  }

  /** The number of waiting timers. */
  get waiting(): number {
    return this.timers.length
  }

  /** Advances the clock. Runs each due timer at its time, then what waited for it. */
  async advance(ms: number): Promise<void> {
    const end = this.time + ms
    for (;;) {
      await settled()
      const next = this.timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.timers = this.timers.filter((other) => other !== next)
      this.time = Math.max(this.time, next.at)
      next.run()
    }
    this.time = end
    await settled()
  }
}

/** Resolves when all promises that can settle have settled. */
export async function settled(): Promise<void> {
  // More turns than the longest chain of promises in the client.
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve()
}

/** A storage in memory. */
export function memoryStorage(): ChatStorage {
  const shelves = new Map<Shelf, Map<string, unknown>>()
  const shelf = (name: Shelf) => shelves.get(name) ?? shelves.set(name, new Map()).get(name)!
  return {
    all: async <T>(name: Shelf) => [...shelf(name)] as [string, T][],
    put: async (name, key, value) => void shelf(name).set(key, structuredClone(value)),
    delete: async (name, key) => void shelf(name).delete(key),
    wipe: async () => shelves.clear(),
  }
}

/** A page whose state the test sets. */
export class FakePage implements Page {
  private state = { isVisible: true, hasFocus: true, isOnline: true }
  private readonly listeners = new Set<(signal: PageSignal) => void>()

  isVisible = () => this.state.isVisible
  hasFocus = () => this.state.hasFocus
  isOnline = () => this.state.isOnline
  painted = async () => {}

  listen(listener: (signal: PageSignal) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** Changes the state and reports it. */
  set(part: Partial<FakePage['state']>): void {
    this.state = { ...this.state, ...part }
    this.signal(part.isOnline === undefined ? 'attention' : 'network')
  }

  signal(signal: PageSignal): void {
    for (const listener of this.listeners) listener(signal)
  }

  get listenerCount(): number {
    return this.listeners.size
  }
}

/** A socket for which the test acts as the server. */
export class FakeSocket implements ChatSocket {
  /** The tokens passed to `open` and `setToken`. */
  readonly tokens: string[] = []
  readonly channels = new Map<string, ChannelHandlers>()
  heartbeats = 0
  opens = 0
  private handlers: SocketHandlers | null = null

  open(token: string, handlers: SocketHandlers): void {
    this.opens += 1
    this.tokens.push(token)
    this.handlers = handlers
  }

  join(topic: string, _tables: readonly string[], handlers: ChannelHandlers): () => void {
    this.channels.set(topic, handlers)
    return () => this.channels.delete(topic)
  }

  setToken(token: string): void {
    this.tokens.push(token)
  }

  heartbeat(): void {
    this.heartbeats += 1
  }

  close(): void {
    this.handlers = null
    this.channels.clear()
  }

  /** Whether the client wants a connection now. */
  get isWanted(): boolean {
    return this.handlers !== null
  }

  /** Accepts the connection, so that the socket is open. */
  accept(): void {
    this.handlers?.onOpen()
  }

  /** Reports that the row changes of the user's channel are live. */
  goLive(userId: string): void {
    this.channels.get(`user:${userId}`)?.onSystem({ isLive: true, text: 'Subscribed to PostgreSQL' })
  }

  /** Reports that it is time for a heartbeat. */
  beat(): void {
    this.handlers?.onBeat()
  }

  /** Reports that something was received. */
  receive(): void {
    this.handlers?.onReceived()
  }

  /** Breaks the connection. */
  lose(reason = '1006'): void {
    const { handlers } = this
    this.handlers = null
    this.channels.clear()
    handlers?.onClose(reason)
  }
}

export interface TestClient {
  client: ChatClient
  clock: FakeClock
  page: FakePage
  socket: FakeSocket
  /** Triggers the heartbeat, which normally happens every 25 seconds. */
  beat(): void
}

/** Creates a client with a fake environment. `options.fetch` responds to the client's requests. */
export function createTestClient(
  options: ChatClientOptions & { fetch: typeof fetch },
  environment: Partial<Environment> = {},
): TestClient {
  const clock = new FakeClock()
  const page = new FakePage()
  const socket = new FakeSocket()
  const storage = memoryStorage()
  const client = new Client(options, {
    clock,
    page,
    loadSocket: async () => socket,
    loadStorage: async () => storage,
    locks: null,
    openChannel: null,
    actions,
    ...environment,
  })
  return { client, clock, page, socket, beat: () => socket.beat() }
}
