// Implements the socket with realtime-js. All attempts to connect use the same `RealtimeClient`,
// because every `RealtimeClient` adds listeners to the page. It never reconnects by itself:
// `connection.ts` decides when to connect.

import { RealtimeClient, type RealtimeChannel } from '@supabase/realtime-js'
import type { Cancel } from './clock'
import { HEARTBEAT_MS, startHeartbeat } from './heartbeat'
import type { Input } from './inputs'
import type { ChannelHandlers, ChatSocket, SocketHandlers } from './socket'

/** The maximum delay of a timer, 24 days, so that realtime-js never reconnects by itself. */
const NEVER_MS = 2_147_483_647

export interface RealtimeSocketSettings {
  /** For example `wss://chat.example.com`. */
  url: string
  anonKey: string
  WebSocket?: typeof WebSocket
  /** Calls the function every 25 seconds, even in a hidden tab. */
  startHeartbeat?: (beat: () => void) => Cancel
}

export class RealtimeSocket implements ChatSocket {
  readonly #settings: RealtimeSocketSettings
  #created: RealtimeClient | null = null
  #handlers: SocketHandlers | null = null
  #closing: Promise<unknown> = Promise.resolve()
  #stopHeartbeat: Cancel = () => {}
  /** Channels whose end the server has not confirmed. Until then, their topics cannot be joined. */
  readonly #leaving = new Map<string, Promise<unknown>>()

  constructor(settings: RealtimeSocketSettings) {
    this.#settings = settings
  }

  open(token: string, handlers: SocketHandlers): void {
    this.#handlers = handlers
    void this.#closing.then(async () => {
      // The token must be set before the first join, which would otherwise identify no user.
      await this.#client.setAuth(token)
      if (this.#handlers === handlers) this.#client.connect()
    })
  }

  join(topic: string, tables: readonly string[], handlers: ChannelHandlers): () => void {
    const socket = this.#handlers
    let channel: RealtimeChannel | null = null
    let isLeft = false
    const isCurrent = () => !isLeft && this.#handlers === socket
    const leave = () => {
      isLeft = true
      if (channel) this.#drop(topic, channel)
      channel = null
    }
    void Promise.resolve(this.#leaving.get(topic)).then(() => {
      if (isCurrent()) channel = this.#subscribe(topic, tables, handlers, isCurrent, leave)
    })
    return leave
  }

  #subscribe(
    topic: string,
    tables: readonly string[],
    handlers: ChannelHandlers,
    isCurrent: () => boolean,
    leave: () => void,
  ): RealtimeChannel {
    const channel = this.#client.channel(topic, { config: { private: true } })
    for (const table of tables) {
      channel.on('postgres_changes', { event: '*', schema: 'public', table }, (change) => {
        if (isCurrent()) handlers.onInput(toInput(change))
      })
    }
    channel.on('broadcast', { event: '*' }, ({ event, payload }) => {
      if (isCurrent())
        handlers.onInput({ type: 'event', name: event, payload: (payload ?? {}) as Record<string, unknown> })
    })
    channel.on('system', {}, (message: { extension?: string; status?: string; message?: string }) => {
      if (!isCurrent() || message.extension !== 'postgres_changes') return
      handlers.onSystem({ isLive: message.status === 'ok', text: message.message ?? '' })
    })
    return channel.subscribe((status, error) => {
      if (!isCurrent() || status === 'SUBSCRIBED') return
      leave()
      handlers.onClosed(error?.message ?? status)
    })
  }

  setToken(token: string): void {
    void this.#client.setAuth(token)
  }

  heartbeat(): void {
    void this.#client.sendHeartbeat()
  }

  close(): void {
    this.#handlers = null
    this.#stopHeartbeat()
    if (!this.#created) return
    for (const channel of this.#client.getChannels()) this.#drop(channel.topic, channel)
    this.#closing = Promise.resolve(this.#client.disconnect())
  }

  /**
   * Creates the `RealtimeClient` on first use, because it adds listeners to the page. Creating a
   * `ChatClient` must add none.
   */
  get #client(): RealtimeClient {
    const { url, anonKey, WebSocket = globalThis.WebSocket } = this.#settings
    this.#created ??= new RealtimeClient(endpoint(url), {
      params: { apikey: anonKey },
      transport: this.#observed(WebSocket),
      heartbeatIntervalMs: HEARTBEAT_MS,
      reconnectAfterMs: () => NEVER_MS,
    })
    return this.#created
  }

  /**
   * Adds listeners to the WebSocket, because realtime-js reports neither that it has opened nor
   * that something was received.
   */
  #observed(Base: typeof WebSocket): typeof WebSocket {
    const current = () => this.#handlers
    const opened = () => this.#opened()
    const lose = (reason: string) => this.#lose(reason)
    return class extends Base {
      constructor(address: string | URL, protocols?: string | string[]) {
        super(address, protocols)
        const handlers = current()
        const isCurrent = () => handlers !== null && handlers === current()
        this.addEventListener('open', () => isCurrent() && opened())
        this.addEventListener('message', () => isCurrent() && handlers?.onReceived())
        this.addEventListener('close', ({ code, reason }) => isCurrent() && lose(`${code} ${reason}`.trim()))
      }
    }
  }

  #opened(): void {
    const { startHeartbeat: start = startHeartbeat } = this.#settings
    this.#stopHeartbeat = start(() => this.#handlers?.onBeat())
    this.#handlers?.onOpen()
  }

  #lose(reason: string): void {
    const handlers = this.#handlers
    // This also stops realtime-js from reconnecting.
    this.close()
    handlers?.onClose(reason)
  }

  #drop(topic: string, channel: RealtimeChannel): void {
    const left = this.#client.removeChannel(channel).finally(() => {
      if (this.#leaving.get(topic) === left) this.#leaving.delete(topic)
    })
    this.#leaving.set(topic, left)
  }
}

/** Adds the default path to an address without one. realtime-js appends `/websocket`. */
export function endpoint(url: string): string {
  const address = new URL(url.replace(/^http/, 'ws'))
  if (address.pathname === '/') address.pathname = '/realtime/v1'
  return address.href.replace(/\/$/, '')
}

interface RowChange {
  table: string
  eventType: 'INSERT' | 'UPDATE' | 'DELETE'
  new: Record<string, unknown>
  old: Record<string, unknown>
}

function toInput({ table, eventType, new: row, old }: RowChange): Input {
  return { type: 'row', table, action: eventType, row: eventType === 'DELETE' ? old : row }
}
