// Implements the public interface with the engine.

import type { ChatClient, ChatClientOptions, ConversationClient } from './chat-client'
import { Engine } from './engine'
import type { Environment } from './environment'
import type { ChatEvent, ChatState, Conversation, Person, Preferences, PresenceStatus, Result } from './types'

export class Client implements ChatClient {
  readonly #engine: Engine
  #starts = 0

  constructor(options: ChatClientOptions, environment: Environment) {
    this.#engine = new Engine(options, environment)
  }

  get userId(): string {
    return this.#engine.options.userId
  }

  get api() {
    return this.#engine.api
  }

  start(): () => void {
    this.#starts += 1
    if (this.#starts === 1) this.#engine.start()
    let isUndone = false
    return () => {
      if (isUndone) return
      isUndone = true
      this.stop()
    }
  }

  stop(): void {
    if (this.#starts === 0) return
    this.#starts -= 1
    if (this.#starts === 0) this.#engine.stop()
  }

  async signOut(): Promise<void> {
    this.#starts = 0
    await this.#engine.signOut()
  }

  setToken(token: string | null): void {
    this.#engine.token.set(token)
    this.#engine.connection.setToken(token)
    if (token !== null && this.#starts > 0) this.#engine.outbox.resume(true)
  }

  reconnect(): void {
    this.#engine.reconnect()
  }

  getState(): ChatState {
    return this.#engine.store.getState()
  }

  getServerState(): ChatState {
    return this.#engine.store.initial
  }

  subscribe(listener: () => void): () => void {
    return this.#engine.store.subscribe(listener)
  }

  listen(listener: (event: ChatEvent) => void): () => void {
    return this.#engine.listen(listener)
  }

  conversation(conversationId: string): ConversationClient {
    return this.#engine.conversation(conversationId)
  }

  findConversation(personId: string): Promise<Result<Conversation | null>> {
    return this.#engine.act('findConversation', personId)
  }

  openConversation(personId: string): Promise<Result<Conversation>> {
    return this.#engine.act('openConversation', personId)
  }

  archive(conversationId: string, isArchived: boolean): Promise<Result<null>> {
    return this.#engine.act('archive', conversationId, isArchived)
  }

  pin(conversationId: string, isPinned: boolean): Promise<Result<null>> {
    return this.#engine.act('pin', conversationId, isPinned)
  }

  mute(conversationId: string, isMuted: boolean, until?: string | null): Promise<Result<null>> {
    return this.#engine.act('mute', conversationId, isMuted, until)
  }

  clear(conversationId: string): Promise<Result<null>> {
    return this.#engine.act('clear', conversationId)
  }

  markAllRead(): Promise<Result<null>> {
    return this.#engine.act('markAllRead')
  }

  searchUsers(query: string, options?: { signal?: AbortSignal }): Promise<Result<readonly Person[]>> {
    return this.#engine.act('searchUsers', query, options)
  }

  watchPresence(personIds: readonly string[]): () => void {
    return this.#engine.presenceWatch.watch(personIds)
  }

  setStatus(
    status: PresenceStatus,
    options?: { until?: string | null; text?: string | null; emoji?: string | null },
  ): Promise<Result<null>> {
    return this.#engine.act('setStatus', status, options)
  }

  loadPreferences(): Promise<Result<Preferences>> {
    return this.#engine.act('loadPreferences')
  }

  setPreferences(change: Partial<Preferences>): Promise<Result<Preferences>> {
    return this.#engine.act('setPreferences', change)
  }

  block(personId: string): Promise<Result<null>> {
    return this.#engine.act('block', personId, true)
  }

  unblock(personId: string): Promise<Result<null>> {
    return this.#engine.act('block', personId, false)
  }
}
