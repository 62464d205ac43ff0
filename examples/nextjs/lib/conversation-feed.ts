// The state of one displayed conversation: history, live changes, and changes missed while
// disconnected.

import type { RealtimeChannel, SupabaseClient } from '@supabase/supabase-js'
import type { ChatError, Message, Sync, UserChatAPI } from './user-chat-api'

export interface FeedMessage extends Message {
  /** Set only for messages of this page that the server has not confirmed yet. */
  state?: 'sending' | 'failed'
}

export interface FeedState {
  messages: FeedMessage[]
  /** Ids of the users who are typing. */
  typing: string[]
  status: 'connecting' | 'live' | 'offline'
  error: ChatError | null
}

/** Delay before a retry, in milliseconds. */
const RETRY_MS = 2_000

export class ConversationFeed {
  private state: FeedState = { messages: [], typing: [], status: 'connecting', error: null }
  private readonly listeners = new Set<() => void>()
  private channel: RealtimeChannel | null = null
  private cursor: string | undefined
  private catchingUp: Promise<void> | null = null
  private isStale = false
  private isStopped = true
  private retry: ReturnType<typeof setTimeout> | undefined
  private readonly expiries = new Map<string, ReturnType<typeof setTimeout>>()

  constructor(
    private readonly api: UserChatAPI,
    private readonly chat: SupabaseClient,
    private readonly conversationId: string,
    private readonly userId: string,
  ) {}

  /** The interface that React's useSyncExternalStore expects. */
  readonly getState = (): FeedState => this.state
  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  start(): void {
    this.isStopped = false
    this.join()
  }

  stop(): void {
    this.isStopped = true
    clearTimeout(this.retry)
    this.expiries.forEach(clearTimeout)
    if (this.channel) void this.chat.removeChannel(this.channel)
    this.channel = null
  }

  /**
   * Shows the message immediately. The stored row replaces it, whether it arrives by REST or by
   * socket first.
   */
  async send(content: string, clientMessageId: string = crypto.randomUUID()): Promise<void> {
    const now = new Date().toISOString()
    this.upsert({
      id: clientMessageId,
      conversation_id: this.conversationId,
      sender_id: this.userId,
      content,
      message_type: 'text',
      created_at: now,
      updated_at: now,
      is_edited: false,
      is_deleted: false,
      read_by: [],
      client_message_id: clientMessageId,
      seq: Number.MAX_SAFE_INTEGER,
      rev: 0,
      state: 'sending',
    })
    const { data, error } = await this.api.sendMessage(this.conversationId, this.userId, content, 'text', clientMessageId)
    if (data) this.upsert(data)
    else this.fail(clientMessageId, error)
  }

  private join(): void {
    const messages = { schema: 'public', table: 'user_messages', filter: `conversation_id=eq.${this.conversationId}` }
    const channel = this.chat.channel(`conversation:${this.conversationId}`, { config: { private: true } })
    this.channel = channel
    channel
      .on('postgres_changes', { event: '*', ...messages }, ({ eventType, new: row }) => {
        if (eventType !== 'DELETE') this.applyRow(row as Message)
      })
      // The server sends this event when changes are live after a join, a new token or an outage,
      // and when changes may have been missed.
      .on('system', {}, ({ extension }) => {
        if (extension === 'postgres_changes') void this.catchUp()
      })
      .on('broadcast', { event: 'receipt' }, ({ payload }) => this.applyReceipt(payload))
      .on('broadcast', { event: 'typing' }, ({ payload }) => this.setTyping(payload))
      .subscribe((status) => {
        if (this.isStopped || this.channel !== channel) return
        if (status !== 'SUBSCRIBED') this.change({ status: 'offline', typing: [] })
        // A close means that the token expired. The client library does not rejoin by itself.
        if (status === 'CLOSED') this.retryLater(() => this.chat.realtime.setAuth().then(() => this.isStopped || this.join()))
      })
  }

  private retryLater(action: () => void): void {
    clearTimeout(this.retry)
    this.retry = setTimeout(() => this.isStopped || action(), RETRY_MS)
  }

  /** Loads changes. Calls during a running load cause exactly one more load after it. */
  private catchUp(): Promise<void> {
    this.isStale = true
    this.catchingUp ??= (async () => {
      while (this.isStale && !this.isStopped) {
        this.isStale = false
        await this.load()
      }
    })().finally(() => (this.catchingUp = null))
    return this.catchingUp
  }

  /**
   * Loads a cursor and the history on the first call, and the changes since the cursor on later
   * calls.
   */
  private async load(): Promise<void> {
    const isFirst = this.cursor === undefined
    let error: ChatError | null = await this.followChanges()
    if (error?.code === 'resync_required') {
      this.cursor = undefined
      this.change({ messages: this.state.messages.filter(({ state }) => state !== undefined) })
      return this.load()
    }
    if (isFirst && !error) {
      const history = await this.api.getMessages(this.conversationId)
      history.data?.forEach((message) => this.upsert(message))
      error = history.error
      if (error) this.cursor = undefined
    }
    if (error) this.retryLater(() => this.catchUp())
    this.change({ status: error ? 'offline' : 'live', error })
  }

  private async followChanges(): Promise<ChatError | null> {
    for (;;) {
      const { data, error } = await this.api.sync(this.cursor)
      if (error) return error
      this.apply(data)
      this.cursor = data.cursor
      if (!data.has_more) return null
    }
  }

  /** Applies a page in the order that docs/sync.md requires. */
  private apply(page: Sync): void {
    if (page.removed_conversation_ids.includes(this.conversationId)) this.change({ messages: [] })
    for (const { id, cleared_seq } of page.conversations)
      if (id === this.conversationId) this.retain(({ seq }) => seq > cleared_seq)
    page.receipts.filter(({ conversation_id }) => conversation_id === this.conversationId).forEach((receipt) => this.applyReceipt(receipt))
    this.retain(({ id }) => !page.removed_message_ids.includes(id))
    page.messages.filter(({ conversation_id }) => conversation_id === this.conversationId).forEach((message) => this.upsert(message))
  }

  /**
   * Applies a row from the socket. If only `rev` differs, the reactions or the pin changed. The row
   * does not contain them, so they are loaded.
   */
  private applyRow(row: Message): void {
    const held = this.state.messages.find(({ id }) => id === row.id)
    const isTouched = held && row.rev > held.rev && row.updated_at === held.updated_at && !row.is_deleted
    if (isTouched) void this.catchUp()
    else this.upsert(row)
  }

  /**
   * Adds or updates a message. Rows from the socket lack names and reactions, so existing ones are
   * kept.
   */
  private upsert(row: FeedMessage): void {
    const isSame = (held: FeedMessage) =>
      held.id === row.id || (row.client_message_id !== null && held.client_message_id === row.client_message_id && held.sender_id === row.sender_id)
    const held = this.state.messages.find(isSame)
    if (held && held.rev > row.rev) return
    const others = this.state.messages.filter((message) => !isSame(message))
    if (row.is_deleted) return this.change({ messages: others })
    const isRead = held?.read_by.filter((reader) => !row.read_by.includes(reader)) ?? []
    const merged: FeedMessage = { ...held, ...row, read_by: [...row.read_by, ...isRead], state: row.state }
    this.change({ messages: [...others, merged].sort((a, b) => a.seq - b.seq || a.created_at.localeCompare(b.created_at)) })
  }

  private retain(isKept: (message: FeedMessage) => boolean): void {
    this.change({ messages: this.state.messages.filter(isKept) })
  }

  /** Applies a receipt: the user has read up to this position. */
  private applyReceipt(receipt: { user_id: string; last_read_seq?: number }): void {
    const { user_id, last_read_seq = 0 } = receipt
    const isRead = ({ seq, sender_id, read_by }: FeedMessage) =>
      seq <= last_read_seq && sender_id !== user_id && !read_by.includes(user_id)
    this.change({
      messages: this.state.messages.map((message) =>
        isRead(message) ? { ...message, read_by: [...message.read_by, user_id], delivery_status: 'read' } : message,
      ),
    })
  }

  /** Adds or removes a typing user. Typing also ends if no further event arrives. */
  private setTyping({ user_id, is_typing, expires_in_ms }: { user_id: string; is_typing: boolean; expires_in_ms: number }): void {
    clearTimeout(this.expiries.get(user_id))
    const others = this.state.typing.filter((person) => person !== user_id)
    const isShown = is_typing && user_id !== this.userId
    if (isShown) this.expiries.set(user_id, setTimeout(() => this.setTyping({ user_id, is_typing: false, expires_in_ms }), expires_in_ms))
    this.change({ typing: isShown ? [...others, user_id] : others })
  }

  private fail(clientMessageId: string, error: ChatError): void {
    const messages = this.state.messages.map((message): FeedMessage =>
      message.client_message_id === clientMessageId && message.state ? { ...message, state: 'failed' } : message,
    )
    this.change({ messages, error })
  }

  private change(part: Partial<FeedState>): void {
    this.state = { ...this.state, ...part }
    this.listeners.forEach((listener) => listener())
  }
}
