// The client's surface over the engine.

import type { ChatClient, ChatClientOptions, ConversationClient } from './chat-client'
import { Engine } from './engine'
import type { Environment } from './environment'
import { ok, refused } from './errors'
import type { ChatEvent, ChatState, Conversation, Person, Preferences, PresenceStatus, Result } from './types'
import type { Presence } from './wire'

export class Client implements ChatClient {
  private readonly engine: Engine
  private starts = 0

  constructor(options: ChatClientOptions, environment: Environment) {
    this.engine = new Engine(options, environment)
  }

  get userId(): string {
    return this.engine.options.userId
  }

  get api() {
    return this.engine.api
  }

  start(): () => void {
    this.starts += 1
    if (this.starts === 1) this.engine.start()
    let isUndone = false
    return () => {
      if (isUndone) return
      isUndone = true
      this.stop()
    }
  }

  stop(): void {
    if (this.starts === 0) return
    this.starts -= 1
    if (this.starts === 0) this.engine.stop()
  }

  async signOut(): Promise<void> {
    this.starts = 0
    await this.engine.signOut()
  }

  setToken(token: string | null): void {
    this.engine.token.set(token)
    this.engine.connection.setToken(token)
    if (token !== null && this.starts > 0) this.engine.outbox.resume(true)
  }

  reconnect(): void {
    this.engine.reconnect()
  }

  getState(): ChatState {
    return this.engine.store.getState()
  }

  getServerState(): ChatState {
    return this.engine.store.initial
  }

  subscribe(listener: () => void): () => void {
    return this.engine.store.subscribe(listener)
  }

  listen(listener: (event: ChatEvent) => void): () => void {
    return this.engine.listen(listener)
  }

  conversation(conversationId: string): ConversationClient {
    return this.engine.conversation(conversationId)
  }

  async findConversation(personId: string): Promise<Result<Conversation | null>> {
    const known = this.getState().conversations.find(
      ({ kind, other_user }) => kind === 'direct' && other_user?.id === personId,
    )
    if (known) return ok(known)
    const { data, error } = await this.api.openConversation(personId, { preventCreation: true })
    if (error?.status === 404) return ok(null)
    return error ? refused(error) : ok(this.known(data))
  }

  async openConversation(personId: string): Promise<Result<Conversation>> {
    const { data, error } = await this.api.openConversation(personId)
    return error ? refused(error) : ok(this.known(data))
  }

  archive(conversationId: string, isArchived: boolean): Promise<Result<null>> {
    return this.set('archive', conversationId, isArchived, { is_archived: isArchived }, (value) => ({
      isArchived: value,
    }))
  }

  pin(conversationId: string, isPinned: boolean): Promise<Result<null>> {
    return this.set('pin', conversationId, isPinned, { is_pinned: isPinned }, (value) => ({ isPinned: value }))
  }

  mute(conversationId: string, isMuted: boolean, until: string | null = null): Promise<Result<null>> {
    const shown = { is_muted: isMuted, muted_until: isMuted ? until : null }
    return this.set('mute', conversationId, isMuted, shown, (value) => ({
      isMuted: value,
      ...(value && { mutedUntil: until }),
    }))
  }

  async clear(conversationId: string): Promise<Result<null>> {
    const { error } = await this.api.clearConversation(conversationId)
    if (error) return refused(error)
    await this.engine.syncNow()
    return ok(null)
  }

  async markAllRead(): Promise<Result<null>> {
    const unread = this.getState().conversations.filter(
      ({ unread_count, marked_unread }) => unread_count > 0 || marked_unread,
    )
    // One after another: there is a limit for marking.
    for (const { id } of unread) {
      const { error } = await this.conversation(id).markRead()
      if (error) return refused(error)
    }
    return ok(null)
  }

  async searchUsers(query: string, options: { signal?: AbortSignal } = {}): Promise<Result<readonly Person[]>> {
    const { data, error } = await this.api.searchUsers(query, this.userId, null, options)
    if (error) return refused(error)
    for (const person of data) {
      this.engine.store.putPerson(person)
      this.engine.store.putPresence(person.id, { status: person.status })
    }
    return ok(data)
  }

  watchPresence(personIds: readonly string[]): () => void {
    return this.engine.presenceOfOthers.watch(personIds)
  }

  async setStatus(
    status: PresenceStatus,
    { until, text, emoji }: { until?: string | null; text?: string | null; emoji?: string | null } = {},
  ): Promise<Result<null>> {
    // `online` without an end is not a choice: it ends the one that was made.
    const manualUntil = until ?? null
    const { data, error } = await this.api.setPresence({
      status,
      manualUntil,
      ...(text !== undefined && { statusText: text }),
      ...(emoji !== undefined && { statusEmoji: emoji }),
    })
    if (error) return refused(error)
    this.engine.store.putPresence(this.userId, data satisfies Presence)
    return ok(null)
  }

  async loadPreferences(): Promise<Result<Preferences>> {
    return this.keepPreferences(await this.api.getPreferences())
  }

  async setPreferences(change: Partial<Preferences>): Promise<Result<Preferences>> {
    const before = this.getState().preferences
    if (before) this.engine.store.set({ preferences: { ...before, ...change } })
    const result = await this.api.setPreferences(change)
    if (result.error) {
      this.engine.store.set({ preferences: before })
      this.engine.emit({
        type: 'change_failed',
        change: 'preferences',
        messageId: null,
        conversationId: null,
        error: result.error,
      })
    }
    return this.keepPreferences(result)
  }

  async block(personId: string): Promise<Result<null>> {
    return this.afterBlock(personId, false, (await this.api.block(personId)).error)
  }

  async unblock(personId: string): Promise<Result<null>> {
    return this.afterBlock(personId, true, (await this.api.unblock(personId)).error)
  }

  private known(row: Conversation): Conversation {
    this.engine.store.putConversation(row)
    return this.getState().conversations.find(({ id }) => id === row.id) ?? row
  }

  private set(
    kind: 'archive' | 'pin' | 'mute',
    conversationId: string,
    value: boolean,
    shown: Partial<Conversation>,
    settings: (value: boolean) => Parameters<typeof this.api.updateConversation>[1],
  ): Promise<Result<null>> {
    return this.engine.change(kind, 'sync', { conversationId, onConversation: (row) => ({ ...row, ...shown }) }, () =>
      this.engine.wishes.wish(`${kind} ${conversationId}`, value, (wanted) =>
        this.api.updateConversation(conversationId, settings(wanted)),
      ),
    )
  }

  private keepPreferences(result: Result<Preferences>): Result<Preferences> {
    if (result.data) this.engine.store.set({ preferences: result.data })
    return result
  }

  /** Whether the user can be written to is not a change of a row, so the conversation is asked for. */
  private async afterBlock(personId: string, canSend: boolean, error: Result<null>['error']): Promise<Result<null>> {
    if (error) return refused(error)
    const row = this.getState().conversations.find(({ other_user }) => other_user?.id === personId)
    if (!row) return ok(null)
    const { data } = await this.api.getConversation(row.id)
    this.engine.store.putConversation(data ?? { ...row, can_send: canSend })
    return ok(null)
  }
}
