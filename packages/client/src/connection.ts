// Decides how changes arrive: over the socket, by long poll, or not at all.

import { backoff, CONNECT_PAUSES_MS } from './backoff'
import type { Cancel, Clock } from './clock'
import { isSignedOut, unreachable } from './errors'
import type { Input } from './inputs'
import type { Page } from './page'
import type { ChatSocket } from './socket'
import type { SyncEngine } from './sync'
import type { ChatError, Connection as ConnectionState, ConnectionStatus } from './types'

/** The time limit for obtaining a token and opening the socket. */
const OPEN_TIMEOUT_MS = 10_000
/** The time limit for joining the user's channel, until its row changes are live. */
const JOIN_TIMEOUT_MS = 20_000
/** The time within which something must be received after `#probe` has sent a heartbeat. */
const PROBE_TIMEOUT_MS = 5_000

/** Two heartbeat intervals. If nothing is received for longer, the connection counts as dead. */
export const SOCKET_SILENCE_MS = 50_000

/** After this many failures in a row, changes are polled. */
const FAILURES_BEFORE_POLLING = 3

/** The interval between attempts to open the socket while polling. */
const SOCKET_RETRY_MS = 60_000

/** The tables whose row changes arrive on the user's channel. */
const TABLES = [
  'user_messages',
  'user_conversations',
  'conversation_receipts',
  'message_reactions',
  'user_presence',
] as const

export interface ConnectionSettings {
  clock: Clock
  page: Page
  userId: string
  /** Loads the code of the socket. Null if the client has no socket and polls changes. */
  loadSocket: (() => Promise<ChatSocket>) | null
  sync: SyncEngine
  token: { get(): Promise<string | null>; replace(refused: string | null): Promise<string | null> }
  onInput(input: Input): void
  onState(state: ConnectionState): void
}

export class Connection {
  readonly #settings: ConnectionSettings
  #state: ConnectionState
  #failures = 0
  /** The number of the current attempt. Results of earlier attempts are ignored. */
  #attempt = 0
  /** Increases when the user's channel is joined again over the same socket. */
  #joins = 0
  #lastReceived = 0
  #token: string | null = null
  /** Null until it is first opened. All attempts use the same one. */
  #socket: ChatSocket | null = null
  #isOpen = false
  #cancelTimer: Cancel = () => {}
  #cancelProbe: Cancel | null = null
  #stopListening: Cancel = () => {}
  #polling: AbortController | null = null
  /**
   * The displayed conversations: how often each is displayed, and the function that leaves its
   * channel.
   */
  readonly #watched = new Map<string, { count: number; leave: Cancel | null }>()

  constructor(settings: ConnectionSettings) {
    this.#settings = settings
    this.#state = {
      status: 'idle',
      since: settings.clock.now(),
      downSince: settings.clock.now(),
      retryAt: null,
      error: null,
    }
  }

  get status(): ConnectionStatus {
    return this.#state.status
  }

  start(): void {
    if (this.status !== 'idle') return
    const { page, sync } = this.#settings
    sync.start()
    this.#stopListening = page.listen((signal) => {
      if (signal === 'network') this.#networkChanged()
      if (signal === 'attention' && page.isVisible()) this.#wake()
      if (signal === 'return') this.#wake()
    })
    this.#connect()
  }

  stop(): void {
    this.#endAttempt()
    this.#settings.sync.stop()
    this.#stopListening()
    this.#failures = 0
    this.#become('idle')
  }

  /** Connects now instead of at `retryAt`. While polling, tries the socket; if live, checks it. */
  reconnect(): void {
    if (this.status === 'reconnecting' || this.status === 'offline') this.#connect()
    else if (this.status === 'polling') this.#openSocket()
    else if (this.status === 'live') this.#probe()
  }

  /** Sends the application's new token to the channels or, after `signed_out`, connects with it. */
  setToken(token: string | null): void {
    if (token === null) return
    if (this.status === 'signed_out') {
      this.#failures = 0
      this.#settings.sync.start()
      return this.#connect()
    }
    this.#pushToken(token)
  }

  /** Disconnects because the session has ended or belongs to another user. */
  signedOut(error: ChatError): void {
    if (this.status === 'idle' || this.status === 'signed_out') return
    this.#endAttempt()
    this.#settings.sync.stop()
    this.#become('signed_out', { error })
  }

  /** Joins the conversation's channel, for typing, until the returned function is called. */
  watch(conversationId: string): Cancel {
    const entry = this.#watched.get(conversationId) ?? { count: 0, leave: null }
    this.#watched.set(conversationId, entry)
    entry.count += 1
    if (this.#isOpen) this.#joinConversation(conversationId)
    return () => {
      entry.count -= 1
      if (entry.count > 0) return
      entry.leave?.()
      this.#watched.delete(conversationId)
    }
  }

  // Attempts

  #connect(): void {
    this.#endAttempt()
    if (!this.#settings.page.isOnline()) return this.#become('offline')
    this.#become('connecting')
    if (this.#settings.loadSocket) this.#openSocket()
    else this.#poll()
  }

  #openSocket(): void {
    const { loadSocket, token } = this.#settings
    if (!loadSocket) return
    const attempt = ++this.#attempt
    const isCurrent = () => attempt === this.#attempt
    this.#after(OPEN_TIMEOUT_MS, () => this.#fail('The connection could not be opened in time.'))
    Promise.all([token.get(), this.#socket ?? loadSocket()]).then(
      ([value, socket]) => {
        if (!isCurrent()) return
        if (value === null) return this.#fail('There is no token.')
        this.#token = value
        this.#socket = socket
        socket.open(value, {
          onOpen: () => isCurrent() && this.#opened(),
          onClose: (reason) => isCurrent() && this.#fail(reason),
          onReceived: () => isCurrent() && this.#received(),
          onBeat: () => isCurrent() && this.#beat(),
        })
      },
      (cause) => isCurrent() && this.#fail(String(cause)),
    )
  }

  #opened(): void {
    this.#stopPolling()
    this.#isOpen = true
    this.#joining()
    this.#received()
    this.#join()
  }

  #joining(): void {
    this.#become('joining')
    this.#after(JOIN_TIMEOUT_MS, () => this.#fail('The channel could not be joined in time.'))
  }

  /** Joins the user's channel and those of the displayed conversations. */
  #join(): void {
    const { sync, userId } = this.#settings
    const attempt = this.#attempt
    const isCurrent = () => attempt === this.#attempt
    this.#socket?.join(`user:${userId}`, TABLES, {
      onInput: (input) => isCurrent() && this.#settings.onInput(input),
      onSystem: ({ isLive }) => {
        if (!isCurrent()) return
        if (isLive && this.status === 'joining') void this.#catchUp()
        // After any other message about row changes, some changes may have been missed.
        else void sync.request()
      },
      onClosed: (reason) => {
        if (!isCurrent()) return
        // An expired token ends the channel but not the socket. A channel that was already joined
        // is joined again, whatever the reason.
        const wasJoined = this.status === 'live' || this.status === 'catching_up'
        if (/token|expired|jwt/i.test(reason) || wasJoined) void this.#rejoin()
        else this.#fail(reason)
      },
    })
    for (const id of this.#watched.keys()) this.#joinConversation(id)
  }

  async #rejoin(): Promise<void> {
    const attempt = this.#attempt
    this.#joins += 1
    const { token } = this.#settings
    const refused = this.#token
    this.#joining()
    const fresh = await token.replace(refused).catch(() => null)
    if (attempt !== this.#attempt) return
    // `fresh` is compared with the refused token, not with `#token`: the heartbeat or the
    // application may have set the same new token in the meantime.
    if (fresh === null || fresh === refused) return this.#fail('The channel was closed.')
    this.#token = fresh
    this.#socket?.setToken(fresh)
    this.#join()
  }

  #joinConversation(conversationId: string): void {
    const entry = this.#watched.get(conversationId)
    if (!entry || entry.leave) return
    entry.leave =
      this.#socket?.join(`conversation:${conversationId}`, [], {
        onInput: (input) => this.#settings.onInput(input),
        onSystem: () => {},
        // After that, typing is not shown until the next connection, or until the user's channel is
        // joined again.
        onClosed: () => (entry.leave = null),
      }) ?? null
  }

  async #catchUp(): Promise<void> {
    const [attempt, join] = [this.#attempt, this.#joins]
    this.#become('catching_up')
    this.#cancelTimer()
    const { error } = await this.#settings.sync.request()
    // A channel that was closed in the meantime is joined again, which causes another catch-up.
    if (attempt !== this.#attempt || join !== this.#joins) return
    if (error) return this.#fail(error.message, error)
    this.#failures = 0
    this.#become('live')
  }

  #fail(reason: string, error: ChatError | null = null): void {
    if (this.#polling) {
      // The attempt was made while polling, and polling continues.
      this.#socket?.close()
      this.#attempt += 1
      return this.#retrySocketLater()
    }
    this.#failures += 1
    if (this.#failures >= FAILURES_BEFORE_POLLING) {
      this.#endAttempt()
      return this.#poll()
    }
    this.#retryLater(error ?? unreachable(reason))
  }

  #retryLater(error: ChatError): void {
    const { clock } = this.#settings
    this.#endAttempt()
    const ms = backoff(clock, CONNECT_PAUSES_MS, this.#failures)
    this.#become('reconnecting', { error, retryAt: clock.now() + ms })
    this.#after(ms, () => this.#connect())
  }

  #endAttempt(): void {
    this.#attempt += 1
    this.#isOpen = false
    this.#stopPolling()
    this.#cancelTimer()
    this.#cancelProbe?.()
    this.#cancelProbe = null
    for (const entry of this.#watched.values()) entry.leave = null
    this.#socket?.close()
  }

  /** Calls the function after this many milliseconds, instead of the pending one. */
  #after(ms: number, run: () => void): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#settings.clock.after(ms, run)
  }

  // Without a socket

  #poll(): void {
    const polling = new AbortController()
    this.#polling = polling
    void this.#pollUntil(polling)
  }

  async #pollUntil(polling: AbortController): Promise<void> {
    const { sync } = this.#settings
    // Only a response shows that polling works.
    let { error } = await sync.attempt(polling.signal)
    if (!error && !polling.signal.aborted) {
      this.#become('polling')
      this.#retrySocketLater()
    }
    while (!error && !polling.signal.aborted) ({ error } = await sync.poll(polling.signal))
    if (polling.signal.aborted || !error) return
    if (isSignedOut(error)) return this.signedOut(error)
    this.#failures += 1
    this.#retryLater(error)
  }

  #retrySocketLater(): void {
    if (this.#settings.loadSocket) this.#after(SOCKET_RETRY_MS, () => this.#openSocket())
  }

  #stopPolling(): void {
    this.#polling?.abort()
    this.#polling = null
  }

  // Heartbeats

  #received(): void {
    this.#lastReceived = this.#settings.clock.now()
    this.#cancelProbe?.()
    this.#cancelProbe = null
  }

  #beat(): void {
    const { clock, token } = this.#settings
    if (clock.now() - this.#lastReceived > SOCKET_SILENCE_MS) return this.#fail('Nothing was received.')
    this.#socket?.heartbeat()
    void token.get().then(
      (value) => value !== null && this.#pushToken(value),
      () => {},
    )
  }

  #pushToken(token: string): void {
    if (!this.#isOpen || token === this.#token) return
    this.#token = token
    this.#socket?.setToken(token)
  }

  /** Checks that an apparently open connection still exists, for example after the device slept. */
  #probe(): void {
    if (this.#cancelProbe) return
    this.#socket?.heartbeat()
    this.#cancelProbe = this.#settings.clock.after(PROBE_TIMEOUT_MS, () => this.#fail('Nothing was received.'))
  }

  #networkChanged(): void {
    if (this.status === 'idle' || this.status === 'signed_out') return
    if (!this.#settings.page.isOnline()) {
      this.#endAttempt()
      return this.#become('offline')
    }
    this.#failures = 0
    this.reconnect()
  }

  /** Reconnects or catches up when the page is visible again or leaves the back/forward cache. */
  #wake(): void {
    if (this.status === 'live') {
      void this.#settings.sync.request()
      this.#probe()
    } else if (this.status === 'reconnecting') {
      this.#connect()
    }
  }

  #become(status: ConnectionStatus, { error = null, retryAt = null }: Partial<ConnectionState> = {}): void {
    const { clock, onState } = this.#settings
    const since = status === this.#state.status ? this.#state.since : clock.now()
    const isUp = status === 'live' || status === 'polling'
    this.#state = { status, since, retryAt, error, downSince: isUp ? null : (this.#state.downSince ?? clock.now()) }
    onState(this.#state)
  }
}
