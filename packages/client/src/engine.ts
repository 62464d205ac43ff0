// Connects the parts of the client. Conversations and the public interface share this engine.

import type * as AllActions from './actions'
import { UserChatAPI } from './api'
import type { ChatClientOptions } from './chat-client'
import type { Cancel } from './clock'
import { Connection } from './connection'
import { Conversation } from './conversation-client'
import { Drafts } from './drafts'
import type { Environment } from './environment'
import { isTransient, refused, unreachable } from './errors'
import type { Input } from './inputs'
import { LeadingTab } from './leading-tab'
import { Outbox, type Outgoing } from './outbox'
import { PresenceReporter } from './presence'
import { PresenceWatch } from './presence-watch'
import type { Recent } from './recent'
import { Requests } from './requests'
import { randomId } from './ids'
import { Store } from './store'
import { SyncEngine } from './sync'
import { signal, type Signal } from './signal'
import { sessionStorageOf, type SessionStorage } from './storage'
import { Tabs, type Snapshot, type TabMessage } from './tabs'
import { storedView, unsentView } from './timeline'
import { Token } from './token'
import { TypingWatch } from './typing'
import type {
  ChatError,
  ChatEvent,
  Connection as ConnectionState,
  Result,
  TimelineMessage,
} from './types'
import type * as wire from './wire'

/** A new tab waits this long for the leading tab's state, and then loads the state itself. */
const GREETING_TIMEOUT_MS = 3_000

type Actions = typeof AllActions
type OptionsOf<Name extends keyof Actions> =
  Parameters<Actions[Name]> extends [Engine, ...infer Options] ? Options : never
type AnyAction = (engine: Engine, ...options: unknown[]) => Promise<Result<unknown>>

export class Engine {
  readonly api: UserChatAPI
  readonly store: Store
  readonly outbox: Outbox
  readonly drafts: Drafts
  readonly connection: Connection
  readonly sync: SyncEngine
  readonly token: Token
  readonly #requests: Requests
  readonly #storage: SessionStorage
  readonly tabs: Tabs
  readonly #conversations = new Map<string, Conversation>()
  readonly #typing: TypingWatch
  readonly #presence: PresenceReporter
  readonly #listeners = new Set<(event: ChatEvent) => void>()
  readonly presenceWatch: PresenceWatch
  readonly #leadingTab: LeadingTab
  #cancelImpatience: Cancel = () => {}
  /** Resolved when there is a cursor. Changes are followed from it, so histories can be loaded. */
  positioned: Signal
  /** Stores the recent conversations. Null if they are not stored, or before its code is loaded. */
  #recent: Recent | null = null
  #isRestored = false
  #isStarted = false
  #actions: Actions | null
  /** Identifies this tab in reports of presence. */
  readonly sessionId = randomId()

  constructor(
    readonly options: ChatClientOptions,
    readonly environment: Environment,
  ) {
    const { userId, initialState } = options
    const { clock, page, loadSocket } = environment
    const storage = sessionStorageOf(environment.loadStorage)
    this.#storage = storage
    this.#actions = environment.actions ?? null
    this.token = new Token(options.accessToken)
    this.#requests = new Requests({
      ...options,
      token: this.token,
      painted: page.painted,
      onSignedOut: (error) => this.#signedOut(error),
    })
    this.api = new UserChatAPI(this.#requests)
    this.outbox = new Outbox({
      clock,
      storage,
      send: (message) => this.#post(message),
      onChange: (id) => this.store.touch(id),
      onSent: (message, stored) => this.#sent(message, stored),
      onFailed: (message, error) => this.#failed(message, error),
    })
    this.drafts = new Drafts({
      clock,
      storage,
      save: async (id, text) => !(await this.act('saveDraft', id, text)).error,
      onChange: () => this.store.touchList(),
    })
    this.store = new Store({
      userId,
      initialState,
      now: () => clock.now(),
      outgoing: (id) => this.outbox.of(id),
      outgoingCount: () => this.outbox.size,
      draft: (id) => this.drafts.get(id),
      onIncomplete: () => this.requestSync(),
      onReturned: () => this.#reload(),
      onReceived: (message) => this.#received(message),
    })
    this.sync = new SyncEngine(
      {
        clock,
        fetch: (since, request) => this.api.sync(since, request),
        apply: (input) => this.#take(input),
        onError: (error) => {
          if (this.store.getState().conversationsStatus !== 'ready')
            this.store.set({ conversationsStatus: 'error', conversationsError: error })
          if (!isTransient(error)) this.report(error)
        },
      },
      initialState?.cursor,
    )
    this.#typing = new TypingWatch(clock, (typing) => this.store.set({ typing }))
    this.connection = new Connection({
      clock,
      page,
      userId,
      loadSocket: options.accessToken ? loadSocket : null,
      sync: this.sync,
      token: this.token,
      onInput: (input) => this.#take(input),
      onState: (connection) => this.#take({ type: 'connection', connection }),
    })
    this.#presence = new PresenceReporter({
      clock,
      page,
      ttlMs: () => (this.store.getState().config?.presence_ttl_s ?? 60) * 1_000,
      report: (status) =>
        void this.api.setPresence({ status, sessionId: this.sessionId }, { keepalive: status === 'offline' }),
    })
    this.presenceWatch = new PresenceWatch(
      (userIds) => this.api.getPresence(userIds),
      (row) => this.store.putPresence(row.user_id, row),
    )
    this.#leadingTab = new LeadingTab(clock, () => this.tabs.post({ type: 'sync' }))
    this.tabs = new Tabs({
      name: `rapport:${userId}`,
      clock,
      page,
      locks: environment.locks,
      openChannel: environment.openChannel,
      onLead: () => this.#lead(),
      onFollow: () => this.#follow(),
      onMessage: (message) => this.#receivedMessage(message),
    })
    this.store.subscribe(() => {
      this.#recent?.changed()
      for (const conversation of this.#conversations.values()) conversation.changed()
    })
    this.positioned = signal()
    if (initialState?.cursor !== undefined) this.positioned.resolve()
  }

  // Starting and stopping

  start(): void {
    this.#isStarted = true
    this.#storage.open()
    if (this.options.persist === 'recent') void this.#startFromRecent()
    else this.tabs.start()
    this.outbox.resume()
    if (!this.#isRestored) {
      this.#isRestored = true
      void this.outbox.restore()
      void this.drafts.restore()
    }
    if (this.store.getState().config === null) void this.#loadSelf()
  }

  stop(): void {
    this.#isStarted = false
    this.#recent?.stop()
    this.tabs.stop()
    this.#cancelImpatience()
    this.#leadingTab.stop()
    this.connection.stop()
    this.#presence.stop()
    this.outbox.pause()
    this.drafts.stop()
    this.#typing.clear()
    this.store.set({ isLeader: false })
  }

  async signOut(): Promise<void> {
    this.tabs.post({ type: 'sign_out' })
    const forgotten = this.#forget()
    // The deletion and the request run in parallel, so that an unresponsive IndexedDB does not
    // delay the request, and an unresponsive server does not delay the deletion.
    await Promise.all([forgotten, this.api.endPresence(undefined, { keepalive: true })])
  }

  /** Stops, cancels pending requests, and deletes this user's data from storage and state. */
  #forget(): Promise<void> {
    this.stop()
    this.#requests.cancelAll()
    const wiped = this.#storage.wipe()
    this.#isRestored = false
    this.outbox.forget()
    this.drafts.forget()
    this.sync.reset()
    this.positioned = signal()
    this.store.reset()
    this.emit({ type: 'forgotten' })
    return wiped
  }

  /** Restores what an earlier page stored, before changes are followed from its cursor. */
  async #startFromRecent(): Promise<void> {
    if (this.sync.position !== undefined) this.tabs.start()
    this.#recent ??= (await this.act('openRecent', this.#storage)).data
    await this.#recent?.restore()
    if (this.#isStarted) this.tabs.start()
  }

  requestSync(): void {
    if (this.tabs.leads) this.sync.requestSoon()
    else this.#leadingTab.requestSoon()
  }

  /** Resolves when all changes made before the call have been applied, or when that has failed. */
  async syncNow(): Promise<void> {
    await (this.tabs.leads ? this.sync.request() : this.#leadingTab.request())
  }

  reconnect(): void {
    if (this.tabs.leads) this.connection.reconnect()
    else this.tabs.post({ type: 'reconnect' })
  }

  // Events

  listen(listener: (event: ChatEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  emit(event: ChatEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  report(error: ChatError): void {
    if (error.code !== 'aborted') this.options.onError?.(error)
  }

  // Conversations

  conversation(id: string): Conversation {
    const known = this.#conversations.get(id) ?? new Conversation(id, this)
    this.#conversations.set(id, known)
    return known
  }

  #reload(): void {
    for (const conversation of this.#conversations.values()) conversation.reload()
  }

  // Changes by the user

  /** Runs an action: immediately if the actions are loaded, otherwise as soon as they are. */
  act<Name extends keyof Actions>(name: Name, ...options: OptionsOf<Name>): ReturnType<Actions[Name]> {
    const run = (actions: Actions) => (actions[name] as AnyAction)(this, ...options)
    const result = this.#actions
      ? run(this.#actions)
      : import('./actions').then(
          (actions) => run((this.#actions = actions)),
          (cause) => refused(unreachable(cause)),
        )
    return result as ReturnType<Actions[Name]>
  }

  // Leading and following

  #lead(): void {
    this.#cancelImpatience()
    this.store.set({ isLeader: true })
    this.connection.start()
    this.#presence.start()
    // Restores messages that closed tabs did not send. A message that is sent twice is stored once.
    if (this.#isRestored) void this.outbox.restore()
    // The first load does not wait for the socket, so that the list is shown early.
    if (this.sync.position === undefined) void this.sync.request()
  }

  #follow(): void {
    this.store.set({ isLeader: false })
    this.connection.stop()
    this.#presence.stop()
    this.#cancelImpatience = this.environment.clock.after(GREETING_TIMEOUT_MS, () => {
      // The leading tab may be frozen. If it sends its state later, applying it is harmless.
      if (this.tabs.leads || this.sync.position !== undefined) return
      this.sync.start()
      void this.sync.request()
    })
  }

  /** Applies an input from the server, here and in the other tabs. */
  #take(input: Input): void {
    this.#apply(input)
    if (this.tabs.leads) this.#share(input)
  }

  #share(input: Input): void {
    this.tabs.post({ type: 'input', input, cursor: this.sync.position })
  }

  #apply(input: Input): void {
    this.store.apply(input)
    if (input.type === 'synced') this.positioned.resolve()
    if (input.type === 'forget') {
      this.positioned = signal()
      this.#reload()
    }
    if (input.type === 'event' && input.name === 'typing') this.#receivedTyping(input.payload)
    if (input.type === 'connection') this.#connectionChanged(input.connection)
  }

  #receivedMessage(message: TabMessage): void {
    switch (message.type) {
      case 'input':
        if (this.tabs.leads) return
        if (message.cursor !== undefined) this.sync.moveTo(message.cursor)
        return this.#apply(message.input)
      case 'hello':
        if (this.tabs.leads) this.#welcome()
        return
      case 'snapshot':
        if (!this.tabs.leads) this.restore(message.snapshot)
        return
      case 'sync':
        if (this.tabs.leads) void this.sync.request().then(() => this.tabs.post({ type: 'synced' }))
        return
      case 'synced':
        return this.#leadingTab.answered()
      case 'activity':
        if (this.tabs.leads) this.#presence.active()
        return
      case 'reconnect':
        if (this.tabs.leads) this.connection.reconnect()
        return
      case 'done':
        return this.outbox.discard(message.key)
      case 'sign_out':
        void this.#forget()
        return this.emit({ type: 'signed_out' })
    }
  }

  /** Sends this tab's state to a new tab. */
  #welcome(): void {
    const snapshot = this.snapshot()
    const { connection, presence } = this.store.getState()
    if (snapshot) this.tabs.post({ type: 'snapshot', snapshot })
    this.#share({ type: 'connection', connection })
    this.#share({ type: 'presence', presence })
  }

  /** Returns the state to share with new tabs or to store, or null while nothing is loaded. */
  snapshot(): Snapshot | null {
    const { me, conversationsStatus } = this.store.getState()
    const cursor = this.sync.position
    if (cursor === undefined) return null
    return {
      cursor,
      me,
      conversations: [...this.store.rowsById().values()],
      receipts: this.store.allReceipts(),
      hasMore: conversationsStatus !== 'ready',
    }
  }

  /** Applies the state of another tab or of an earlier page. */
  restore({ cursor, conversations, receipts, me, hasMore }: Snapshot): void {
    this.store.putMe(me)
    this.sync.moveTo(cursor)
    const page: wire.SyncPage = {
      conversations: [...conversations],
      receipts: [...receipts] as wire.Receipt[],
      removed_conversation_ids: [],
      removed_message_ids: [],
      messages: [],
      cursor,
      has_more: hasMore,
    }
    this.#apply({ type: 'synced', page, isFirstLoad: true, isLive: false })
  }

  #connectionChanged({ status, error }: ConnectionState): void {
    if (status === 'live' || status === 'polling') {
      this.outbox.resume(true)
      this.#reload()
      const partners = this.store
        .getState()
        .conversations.flatMap(({ other_user }) => (other_user ? [other_user.id] : []))
      this.presenceWatch.refresh(partners)
    } else {
      this.#typing.clear()
    }
    if (status === 'signed_out') {
      this.outbox.pause()
      this.emit({ type: 'signed_out' })
      if (error) this.report(error)
    }
  }

  #signedOut(error: ChatError): void {
    if (this.tabs.leads) this.connection.signedOut(error)
    // The leading tab has the same session, so its `/sync` fails in the same way, and it signs out.
    else this.requestSync()
  }

  // Messages

  #post(message: Outgoing): Promise<Result<wire.Message>> {
    const { key, createdAt: _at, state: _state, error: _error, ...rest } = message
    return this.api.postMessage({ clientMessageId: key, ...rest })
  }

  #sent(message: Outgoing, stored: wire.Message): void {
    this.store.putAnswer(stored)
    this.tabs.post({ type: 'done', key: message.key })
    this.emit({ type: 'message_sent', message: this.#storedView(stored) })
  }

  #failed(message: Outgoing, error: ChatError): void {
    const { userId } = this.options
    const quoted = this.store.history(message.conversationId)?.get(message.replyToId ?? '')
    const view = unsentView(message, this.store.sender(userId), userId, quoted)
    this.emit({ type: 'message_failed', message: view, error })
    this.report(error)
  }

  /** Returns the view of a message whose conversation need not be displayed. */
  #storedView(message: wire.Message): TimelineMessage {
    return storedView(message, this.store.sender(message.sender_id), this.options.userId)
  }

  #received(message: wire.Message): void {
    const { conversation_id, sender_id } = message
    if (sender_id !== null) this.#typing.received(conversation_id, sender_id)
    const { conversations } = this.store.getState()
    this.emit({
      type: 'message_received',
      message: this.#storedView(message),
      conversation: conversations.find(({ id }) => id === conversation_id) ?? null,
    })
  }

  #receivedTyping(payload: Record<string, unknown>): void {
    const { conversation_id, user_id, is_typing, expires_in_ms } = payload
    if (user_id === this.options.userId) return
    this.#typing.received(String(conversation_id), String(user_id), is_typing === true, Number(expires_in_ms) || 0)
  }

  /** Loads the user with presence and preferences, and the configuration of the server. */
  async #loadSelf(): Promise<void> {
    const [me, config, preferences] = await Promise.all([
      this.api.getMe(),
      this.api.getConfig(),
      this.api.getPreferences(),
      this.presenceWatch.load([this.options.userId]),
    ])
    // Older servers lack `GET /me` and return 404.
    if (me.data) {
      this.store.set({ me: { ...this.store.getState().me, ...me.data } })
      this.store.putPerson(me.data)
    }
    if (config.data) this.store.set({ config: config.data })
    if (preferences.data) this.store.set({ preferences: preferences.data })
  }
}
