/**
 * A client that works in memory, without a server. Component tests and the demonstration page's
 * gallery use it.
 */
import type {
  ChatClient,
  ChatEvent,
  ChatState,
  Conversation,
  ConversationClient,
  Person,
  Result,
  Timeline,
  UserChatAPI,
} from '@rapport-chat/client'
import { conversation, initialState, message, PEOPLE, PREFERENCES, timeline } from './fixtures'

export { conversation, initialState, message, PEOPLE, PREFERENCES, timeline }

export const OK: Result<null> = { data: null, error: null }

/** Records the calls of one conversation, and immediately shows messages that are sent. */
export class FakeConversation implements ConversationClient {
  readonly calls: [string, ...unknown[]][] = []
  opened = 0
  private draft = ''

  constructor(
    readonly id: string,
    private readonly client: FakeClient,
  ) {}

  getTimeline(): Timeline {
    return this.client.getState().timelines[this.id] ?? EMPTY
  }
  subscribe(listener: () => void): () => void {
    return this.client.subscribe(listener)
  }
  open(options?: { at?: string }): () => void {
    this.record('open', options)
    this.opened++
    return () => void this.opened--
  }
  async loadOlder(): Promise<void> {
    this.record('loadOlder')
    await this.client.onLoadOlder?.(this.id)
  }
  async loadNewer(): Promise<void> {
    this.record('loadNewer')
  }
  async jumpTo(messageId: string): Promise<Result<null>> {
    this.record('jumpTo', messageId)
    const target = this.getTimeline().messages.find(({ id }) => id === messageId)
    if (target)
      this.change({
        jump: {
          number: (this.getTimeline().jump?.number ?? 0) + 1,
          target: { at: 'message', messageId, seq: target.seq },
        },
      })
    return OK
  }
  async jumpToNewest(): Promise<void> {
    this.record('jumpToNewest')
  }
  send(content: string, options?: object): string {
    this.record('send', content, options)
    const sent = message(this.id, PEOPLE.ana, content, { state: 'sending', seq: Number.POSITIVE_INFINITY })
    this.change({ messages: [...this.getTimeline().messages, sent] })
    return sent.key
  }
  retry(key: string): void {
    this.record('retry', key)
  }
  discard(key: string): void {
    this.record('discard', key)
    this.change({ messages: this.getTimeline().messages.filter((one) => one.key !== key) })
  }
  async edit(id: string, content: string): Promise<Result<null>> {
    this.record('edit', id, content)
    return this.client.editResult
  }
  async remove(id: string, options?: object): Promise<Result<null>> {
    this.record('remove', id, options)
    return OK
  }
  async react(id: string, reaction: string): Promise<Result<null>> {
    this.record('react', id, reaction)
    return OK
  }
  async pinMessage(id: string, isPinned: boolean): Promise<Result<null>> {
    this.record('pinMessage', id, isPinned)
    return OK
  }
  async report(id: string, reason: string): Promise<Result<null>> {
    this.record('report', id, reason)
    return OK
  }
  async history(id: string): ReturnType<ConversationClient['history']> {
    this.record('history', id)
    return {
      data: [
        { version: 1, previous_content: 'The first wording', edited_at: new Date().toISOString(), edited_by: null },
      ],
      error: null,
    }
  }
  setVisible(lowest: { seq: number; isAtEnd: boolean } | null): void {
    this.record('setVisible', lowest)
  }
  async markRead(): Promise<Result<null>> {
    this.record('markRead')
    return OK
  }
  async markUnread(id?: string): Promise<Result<null>> {
    this.record('markUnread', id)
    return OK
  }
  setDraft(text: string): void {
    this.record('setDraft', text)
    this.draft = text
  }
  getDraft(): string {
    return this.draft
  }
  stopTyping(): void {
    this.record('stopTyping')
  }

  change(values: Partial<Timeline>): void {
    const { timelines } = this.client.getState()
    this.client.set({
      timelines: { ...timelines, [this.id]: { ...(timelines[this.id] ?? timeline(this.id, [])), ...values } },
    })
  }
  called(name: string): unknown[][] {
    return this.calls.filter(([one]) => one === name).map(([, ...rest]) => rest)
  }
  private record(name: string, ...rest: unknown[]): void {
    this.calls.push([name, ...rest])
  }
}

const EMPTY = timeline('', [], { status: 'loading' })

export class FakeClient implements ChatClient {
  readonly userId = PEOPLE.ana.id
  started = 0
  readonly calls: [string, ...unknown[]][] = []
  editResult: Result<null> = OK
  searchResult: Result<object> = {
    data: { data: [], next_cursor: null, prev_cursor: null, has_more: false },
    error: null,
  }
  onLoadOlder: ((id: string) => Promise<void>) | null = null
  /** The people that searches find. */
  found: readonly Person[] = []
  /** The ids of the users that the user has blocked. */
  blocked: readonly string[] = []
  /** Only the functions that the components call directly. */
  readonly api = {
    search: async () => this.searchResult,
    getContacts: async () => ({
      data: { data: this.found, next_cursor: null, prev_cursor: null, has_more: false },
      error: null,
    }),
    setTyping: async () => OK,
    getBlocks: async () => ({ data: this.blocked.map((id) => ({ user_id: id })), error: null }),
  } as unknown as UserChatAPI
  private readonly conversations = new Map<string, FakeConversation>()
  private readonly listeners = new Set<() => void>()
  private readonly eventListeners = new Set<(event: ChatEvent) => void>()

  constructor(private state: ChatState = initialState()) {}

  start(): () => void {
    this.started++
    return () => void this.started--
  }
  stop(): void {
    this.started--
  }
  async signOut(): Promise<void> {
    this.record('signOut')
  }
  setToken(): void {}
  reconnect(): void {
    this.record('reconnect')
  }
  getState(): ChatState {
    return this.state
  }
  getServerState(): ChatState {
    return this.state
  }
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
  listen(listener: (event: ChatEvent) => void): () => void {
    this.eventListeners.add(listener)
    return () => this.eventListeners.delete(listener)
  }
  /** Lets tests check that no listener remains after unmounting. */
  get listenerCount(): number {
    return this.listeners.size + this.eventListeners.size
  }
  conversation(id: string): FakeConversation {
    const known = this.conversations.get(id) ?? new FakeConversation(id, this)
    this.conversations.set(id, known)
    return known
  }
  async findConversation(personId: string): Promise<Result<Conversation | null>> {
    return {
      data: this.state.conversations.find(({ other_user: person }) => person?.id === personId) ?? null,
      error: null,
    }
  }
  async openConversation(personId: string): Promise<Result<Conversation>> {
    this.record('openConversation', personId)
    const known = this.state.conversations.find(({ other_user: person }) => person?.id === personId)
    return { data: known ?? conversation(this.state.people[personId] ?? PEOPLE.ben), error: null }
  }
  async archive(id: string, isArchived: boolean): Promise<Result<null>> {
    return this.changeConversation('archive', id, { is_archived: isArchived })
  }
  async pin(id: string, isPinned: boolean): Promise<Result<null>> {
    return this.changeConversation('pin', id, { is_pinned: isPinned })
  }
  async mute(id: string, isMuted: boolean): Promise<Result<null>> {
    return this.changeConversation('mute', id, { is_muted: isMuted })
  }
  async clear(id: string): Promise<Result<null>> {
    this.record('clear', id)
    this.set({ conversations: this.state.conversations.filter((one) => one.id !== id) })
    return OK
  }
  async markAllRead(): Promise<Result<null>> {
    this.record('markAllRead')
    return OK
  }
  async searchUsers(query: string): Promise<Result<readonly Person[]>> {
    this.record('searchUsers', query)
    return {
      data: this.found.filter(({ full_name: name }) => name?.toLowerCase().includes(query.toLowerCase())),
      error: null,
    }
  }
  watchPresence(ids: readonly string[]): () => void {
    this.record('watchPresence', ids)
    return () => undefined
  }
  async setStatus(status: string, options?: object): Promise<Result<null>> {
    this.record('setStatus', status, options)
    return OK
  }
  async loadPreferences(): ReturnType<ChatClient['loadPreferences']> {
    this.record('loadPreferences')
    return PREFERENCES_RESULT
  }
  async setPreferences(change: object): ReturnType<ChatClient['setPreferences']> {
    this.record('setPreferences', change)
    return PREFERENCES_RESULT
  }
  async block(id: string): Promise<Result<null>> {
    this.record('block', id)
    return OK
  }
  async unblock(id: string): Promise<Result<null>> {
    this.record('unblock', id)
    return OK
  }

  set(values: Partial<ChatState>): void {
    this.state = { ...this.state, ...values }
    for (const listener of this.listeners) listener()
  }
  emit(event: ChatEvent): void {
    for (const listener of this.eventListeners) listener(event)
  }
  called(name: string): unknown[][] {
    return this.calls.filter(([one]) => one === name).map(([, ...rest]) => rest)
  }
  private changeConversation(name: string, id: string, values: Partial<Conversation>): Result<null> {
    this.record(name, id, Object.values(values)[0])
    this.set({ conversations: this.state.conversations.map((one) => (one.id === id ? { ...one, ...values } : one)) })
    return OK
  }
  private record(name: string, ...rest: unknown[]): void {
    this.calls.push([name, ...rest])
  }
}

const PREFERENCES_RESULT = { data: PREFERENCES, error: null }
