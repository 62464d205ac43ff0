/** A client in memory, for the tests of the components and for the gallery. It has no server. */
import type { ChatClient, ChatEvent, ChatState, Conversation, ConversationClient, Person, Result, Timeline, TimelineMessage, UserChatAPI } from '@rapport-chat/client'

export const OK: Result<null> = { data: null, error: null }

export const PEOPLE = {
  ana: { id: '00000000-0000-4000-8000-00000000000a', full_name: 'Ana Admin', avatar_url: null, email: 'ana@example.com', role: 'admin', team_id: null },
  ben: { id: '00000000-0000-4000-8000-00000000000b', full_name: 'Ben Olsen', avatar_url: null, email: 'ben@example.com', role: 'user', team_id: null },
  chloe: { id: '00000000-0000-4000-8000-00000000000c', full_name: 'Chloé Dubois', avatar_url: null, email: 'chloe@example.com', role: 'user', team_id: null },
  mona: { id: '00000000-0000-4000-8000-00000000000d', full_name: 'منى الحسن', avatar_url: null, email: 'mona@example.com', role: 'user', team_id: null },
  max: { id: '00000000-0000-4000-8000-00000000000e', full_name: 'Maximilian Alexander von Württemberg-Hohenzollern', avatar_url: null, email: 'max@example.com', role: 'user', team_id: null },
} satisfies Record<string, Person>

let counter = 0

/** An id that is stable for the same order of calls, so that pictures can be compared. */
function nextId(): string {
  counter++
  return `10000000-0000-4000-8000-${String(counter).padStart(12, '0')}`
}

export function message(conversationId: string, sender: Person, content: string, rest: Partial<TimelineMessage> = {}): TimelineMessage {
  const id = rest.id ?? nextId()
  const at = rest.created_at ?? new Date().toISOString()
  return {
    id,
    key: id,
    conversation_id: conversationId,
    sender_id: sender.id,
    sender: { id: sender.id, full_name: sender.full_name, avatar_url: null, status: 'online' },
    content,
    message_type: 'text',
    client_message_id: null,
    created_at: at,
    updated_at: at,
    edited_at: null,
    deleted_at: null,
    is_edited: false,
    is_deleted: false,
    is_pinned: false,
    delivery_status: 'sent',
    state: 'sent',
    isOwn: sender.id === PEOPLE.ana.id,
    error: null,
    canRetry: false,
    isChanging: false,
    attachments: [],
    mentions: [],
    metadata: {},
    reactions: [],
    read_by: [],
    reply_to: null,
    reply_to_id: null,
    file_name: null,
    file_size: null,
    file_type: null,
    file_url: null,
    rev: 1,
    seq: 1,
    ...rest,
  }
}

export function conversation(other: Person, rest: Partial<Conversation> = {}): Conversation {
  const at = rest.last_message_at ?? new Date().toISOString()
  const participant = (person: Person): NonNullable<Conversation['other_user']> => ({ id: person.id, full_name: person.full_name, avatar_url: null, email: person.email ?? null, last_seen: at, status: 'online' })
  return {
    id: `20000000-0000-4000-8000-${other.id.slice(-12)}`,
    kind: 'direct',
    title: null,
    can_send: true,
    cleared_seq: 0,
    created_at: at,
    created_by: PEOPLE.ana.id,
    draft: null,
    is_archived: false,
    is_muted: false,
    is_pinned: false,
    last_message: null,
    last_message_at: at,
    last_message_id: null,
    last_read_at: null,
    last_read_message_id: null,
    last_read_seq: 0,
    last_seq: 0,
    marked_unread: false,
    mention_count: 0,
    muted_until: null,
    notification_level: 'all',
    other_user: participant(other),
    participant_1: participant(PEOPLE.ana),
    participant_1_id: PEOPLE.ana.id,
    participant_2: participant(other),
    participant_2_id: other.id,
    peer_last_delivered_message_id: null,
    peer_last_delivered_seq: null,
    peer_last_read_message_id: null,
    peer_last_read_seq: null,
    pinned_at: null,
    rev: 1,
    team_id: null,
    unread_count: 0,
    updated_at: at,
    ...rest,
  }
}

export function timeline(conversationId: string, messages: readonly TimelineMessage[], rest: Partial<Timeline> = {}): Timeline {
  return {
    conversationId,
    status: 'ready',
    error: null,
    messages,
    hasOlder: false,
    hasNewer: false,
    isLoadingOlder: false,
    isLoadingNewer: false,
    pageError: null,
    firstUnreadSeq: null,
    jump: null,
    ...rest,
  }
}

export function initialState(rest: Partial<ChatState> = {}): ChatState {
  return {
    connection: { status: 'live', since: 0, downSince: null, retryAt: null, error: null },
    me: { ...PEOPLE.ana, teams: [], can_write: true },
    people: Object.fromEntries(Object.values(PEOPLE).map((person) => [person.id, person])),
    conversations: [],
    conversationsStatus: 'ready',
    conversationsError: null,
    timelines: {},
    unread: { total: 0, mentions: 0, byConversation: {} },
    presence: {},
    typing: {},
    preferences: null,
    config: { edit_window_s: 0, features: { admin_cross_team: true, attachments: false, groups: false }, max_body_bytes: 65536, max_client_message_id_length: 64, max_message_length: 4000, message_types: ['text'], presence_ttl_s: 60, typing_expires_in_ms: 6000 },
    unsentCount: 0,
    isLeader: true,
    ...rest,
  }
}

/** Records the calls of one conversation and shows what is sent at once. */
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
    if (target) this.change({ jump: { number: (this.getTimeline().jump?.number ?? 0) + 1, target: { at: 'message', messageId, seq: target.seq } } })
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
    return { data: [{ version: 1, previous_content: 'The first wording', edited_at: new Date().toISOString(), edited_by: null }], error: null }
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
    this.client.set({ timelines: { ...timelines, [this.id]: { ...(timelines[this.id] ?? timeline(this.id, [])), ...values } } })
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
  onLoadOlder: ((id: string) => Promise<void>) | null = null
  /** What searches find. */
  found: readonly Person[] = []
  /** Only what the components ask the routes for directly. */
  readonly api = {
    search: async () => ({ data: { data: [], next_cursor: null, prev_cursor: null, has_more: false }, error: null }),
    getContacts: async () => ({ data: { data: this.found, next_cursor: null, prev_cursor: null, has_more: false }, error: null }),
    setTyping: async () => OK,
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
  /** For checks that nothing is left after unmounting. */
  get listenerCount(): number {
    return this.listeners.size + this.eventListeners.size
  }
  conversation(id: string): FakeConversation {
    const known = this.conversations.get(id) ?? new FakeConversation(id, this)
    this.conversations.set(id, known)
    return known
  }
  async findConversation(personId: string): Promise<Result<Conversation | null>> {
    return { data: this.state.conversations.find(({ other_user: person }) => person?.id === personId) ?? null, error: null }
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
    return { data: this.found.filter(({ full_name: name }) => name?.toLowerCase().includes(query.toLowerCase())), error: null }
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

export const PREFERENCES = {
  browser_enabled: true,
  digest_hour: 8,
  dnd_until: null,
  email_delay_seconds: 600,
  email_enabled: true,
  email_mode: 'offline' as const,
  quiet_end: '07:00',
  quiet_start: '22:00',
  share_presence: true,
  share_read_receipts: true,
  share_typing: true,
  show_preview: true,
  sound_enabled: true,
  timezone: 'UTC',
  updated_at: '2026-01-01T00:00:00Z',
  user_id: PEOPLE.ana.id,
}

const PREFERENCES_RESULT = { data: PREFERENCES, error: null }
