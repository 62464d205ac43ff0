// The client's data, and the snapshots of it.
//
// `apply` processes the inputs from the server. Snapshots are rebuilt when they are read, at most
// once per change. Parts that did not change remain the same objects.

import { byActivity, countUnread, mergeConversation, withEvent, withMessage } from './conversations'
import { History, type LoadedPage } from './history'
import type { Input } from './inputs'
import { fromAnswer, fromRow, toMessage, type HeldMessage, type MessageRow } from './messages'
import { Overlay } from './overlay'
import type { Outgoing } from './outbox'
import { People, type PersonRow } from './people'
import { Receipts, type ReceiptPositions } from './receipts'
import { haveSameFields, haveSameItems } from './same'
import { senderOf, TimelineBuilder } from './timeline'
import type { ChatState, Conversation, InitialState, Me, Timeline } from './types'
import type * as wire from './wire'

/**
 * Conversations whose messages are kept in memory. Above this number, closed ones are dropped, the
 * least recently opened first.
 */
const MAX_TIMELINES = 5

export interface StoreSettings {
  userId: string
  now(): number
  /** Returns the unsent messages of a conversation. */
  outgoing(conversationId: string): readonly Outgoing[]
  outgoingCount(): number
  /** Returns the local draft of a conversation, if it is newer than the server's. */
  draft(conversationId: string): string | undefined
  /** A change was announced without its content, so it must be fetched. */
  onIncomplete(): void
  /** A displayed conversation that had disappeared exists again, so it must be loaded. */
  onReturned(): void
  /** A new message of another user arrived live. */
  onReceived(message: wire.Message): void
  initialState?: InitialState | undefined
}

interface Entry {
  history: History
  builder: TimelineBuilder
  /** How many times the conversation is currently displayed. */
  opened: number
}

export class Store {
  readonly #settings: StoreSettings
  readonly overlay = new Overlay(({ messageId, conversationId }) => {
    if (conversationId !== undefined) this.touch(conversationId)
    if (messageId === undefined) this.touchList()
  })
  #state: ChatState
  readonly initial: ChatState
  readonly #people = new People(() => {
    this.#arePeopleDirty = true
    this.#schedule()
  })
  readonly #rows = new Map<string, wire.Conversation>()
  readonly #receipts = new Receipts()
  readonly #entries = new Map<string, Entry>()
  /** By message id: reactions from rows that arrived since the last `/sync`. */
  readonly #earlyReactions = new Map<string, { reaction: string; userId: string }[]>()
  /** The conversations of a running first load. At its end, all others are removed. */
  #listed: Set<string> | null = null
  readonly #dirty = new Set<string>()
  #isListDirty = false
  #arePeopleDirty = false
  #isScheduled = false
  readonly #listeners = new Set<() => void>()

  constructor(settings: StoreSettings) {
    this.#settings = settings
    const { userId, initialState = {} } = settings
    const me: Me = {
      id: userId,
      full_name: null,
      avatar_url: null,
      email: null,
      role: null,
      teams: [],
      can_write: true,
      ...initialState.me,
    }
    this.#state = {
      connection: { status: 'idle', since: settings.now(), downSince: settings.now(), retryAt: null, error: null },
      me,
      people: {},
      conversations: [],
      conversationsStatus: initialState.conversations ? 'ready' : 'loading',
      conversationsError: null,
      timelines: {},
      unread: initialState.unread ?? { total: 0, mentions: 0, byConversation: {} },
      presence: {},
      typing: {},
      preferences: initialState.preferences ?? null,
      config: initialState.config ?? null,
      unsentCount: 0,
      isLeader: false,
    }
    this.putPerson(me)
    for (const conversation of initialState.conversations ?? []) this.putConversation(conversation)
    for (const receipt of initialState.receipts ?? []) this.#putReceipt(receipt)
    for (const page of initialState.pages ?? []) {
      this.addPage(page.conversationId, page)
      // The loaded page is displayed, even if newer messages follow it.
      const first = page.messages[0]
      if (page.hasNewer && first) this.changeHistory(page.conversationId, (history) => history.display(first.seq))
    }
    this.initial = this.getState()
  }

  // Reading

  getState(): ChatState {
    if (this.#arePeopleDirty) {
      this.#arePeopleDirty = false
      this.#change(this.#people.snapshot())
    }
    if (this.#isListDirty) this.#rebuildList()
    if (this.#dirty.size > 0) this.#rebuildTimelines()
    return this.#state
  }

  getTimeline(conversationId: string): Timeline {
    return this.getState().timelines[conversationId] ?? this.#emptyTimeline(conversationId)
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  row(conversationId: string): wire.Conversation | undefined {
    return this.#rows.get(conversationId)
  }

  rowsById(): ReadonlyMap<string, wire.Conversation> {
    return this.#rows
  }

  allReceipts(): ReceiptPositions[] {
    return this.#receipts.all()
  }

  history(conversationId: string): History | undefined {
    return this.#entries.get(conversationId)?.history
  }

  /** Returns the history of a conversation, and creates it if necessary. */
  openHistory(conversationId: string): History {
    return this.#entry(conversationId).history
  }

  sender(id: string | null): wire.Sender | null {
    return senderOf(this.#people.byId, id)
  }

  /** The conversations whose messages are in memory, by id. */
  histories(): [conversationId: string, history: History][] {
    return [...this.#entries].map(([id, { history }]) => [id, history])
  }

  // Changing

  /**
   * Forgets everything when the user signs out. Displayed conversations remain, without messages.
   */
  reset(): void {
    this.#people.clear()
    this.#forget()
    const empty = new Store({ ...this.#settings, initialState: undefined }).getState()
    this.set({ ...empty, connection: this.#state.connection })
    this.putPerson(empty.me)
  }

  /** Stores the signed-in user. */
  putMe(me: Me): void {
    this.set({ me })
    this.putPerson(me)
  }

  set(part: Partial<ChatState>): void {
    if (this.#change(part)) this.#schedule()
  }

  /** Returns whether anything changed. */
  #change(part: Partial<ChatState>): boolean {
    if (haveSameFields(part, this.#state)) return false
    this.#state = { ...this.#state, ...part }
    return true
  }

  /** Keeps the messages of a displayed conversation until the returned function is called. */
  hold(conversationId: string): () => void {
    const entry = this.#entry(conversationId)
    entry.opened += 1
    // The entry moves to the end, because the first ones are dropped first.
    this.#entries.delete(conversationId)
    this.#entries.set(conversationId, entry)
    this.#dropOldTimelines()
    // The list does not contain the draft of a displayed conversation.
    this.touchList()
    return () => {
      entry.opened -= 1
      this.touchList()
    }
  }

  changeHistory(conversationId: string, change: (history: History) => void): void {
    change(this.openHistory(conversationId))
    this.touch(conversationId)
  }

  addPage(conversationId: string, page: LoadedPage): void {
    for (const message of page.messages) this.putPerson(message.sender)
    this.changeHistory(conversationId, (history) => history.addPage(page))
  }

  /** Stores a whole message from a response. */
  putAnswer(message: wire.Message): void {
    this.putPerson(message.sender)
    this.#putMessage(fromAnswer(message))
  }

  putConversation(row: wire.Conversation): void {
    this.#rows.set(row.id, mergeConversation(this.#rows.get(row.id), row))
    this.#listed?.add(row.id)
    const history = this.history(row.id)
    history?.clear(row.cleared_seq)
    if (history?.status === 'not_found') {
      history.status = 'idle'
      this.#settings.onReturned()
    }
    for (const person of [row.participant_1, row.participant_2, row.other_user]) {
      this.putPerson(person)
      // For the user's own status, only `GET /presence` contains whether the user chose it.
      if (person && person.id !== this.#settings.userId) this.#people.suggestPresence(person.id, person)
    }
    this.#receipts.putPeer(row)
    this.touch(row.id)
    this.touchList()
  }

  putPerson(row: PersonRow | null): void {
    if (row && this.#people.put(row)) this.#touchAll()
  }

  putPresence(userId: string, row: Partial<wire.Presence>): void {
    this.#people.putPresence(userId, row)
  }

  /** Marks the snapshot of this conversation as outdated. */
  touch(conversationId: string): void {
    this.#dirty.add(conversationId)
    this.#schedule()
  }

  #touchAll(): void {
    for (const id of this.#entries.keys()) this.touch(id)
  }

  touchList(): void {
    this.#isListDirty = true
    this.#schedule()
  }

  apply(input: Input): void {
    switch (input.type) {
      case 'synced':
        return this.#applySync(input)
      case 'forget':
        return this.#forget()
      case 'row':
        return this.#applyRow(input)
      case 'event':
        return this.#applyEvent(input.name, input.payload)
      case 'connection':
        return this.set({ connection: input.connection })
      case 'presence':
        for (const [id, presence] of Object.entries(input.presence)) this.putPresence(id, presence)
    }
  }

  // Inputs from the server

  /** Applies a page in the order that docs/sync.md requires. */
  #applySync({ page, isFirstLoad, isLive }: Extract<Input, { type: 'synced' }>): void {
    if (isFirstLoad) this.#listed ??= new Set()
    for (const id of page.removed_conversation_ids) this.#removeConversation(id)
    const known = new Map(
      page.messages.map(({ conversation_id }) => [conversation_id, this.#rows.get(conversation_id)?.last_seq]),
    )
    for (const row of page.conversations) {
      this.#receipts.forget(row.id)
      this.putConversation(row)
    }
    for (const receipt of page.receipts) this.#putReceipt(receipt)
    for (const id of page.removed_message_ids) {
      for (const [conversationId, { history }] of this.#entries) {
        if (!history.get(id)) continue
        history.remove(id)
        this.touch(conversationId)
      }
    }
    for (const message of page.messages) {
      this.putAnswer(message)
      const isNew = message.seq > (known.get(message.conversation_id) ?? 0)
      if (isLive && isNew && !message.is_deleted && message.sender_id !== this.#settings.userId)
        this.#settings.onReceived(message)
    }
    if (page.has_more) return
    if (isFirstLoad) {
      for (const id of this.#rows.keys()) if (!this.#listed?.has(id)) this.#removeConversation(id)
      this.#listed = null
    }
    // The fetched messages contain the early reactions that still exist.
    if (this.#earlyReactions.size > 0) this.#touchAll()
    this.#earlyReactions.clear()
    this.set({ conversationsStatus: 'ready', conversationsError: null })
  }

  #applyRow({ table, action, row }: Extract<Input, { type: 'row' }>): void {
    switch (table) {
      case 'user_messages':
        return this.#applyMessageRow(action, row as unknown as MessageRow)
      case 'conversation_receipts':
        if (action !== 'DELETE') this.#putReceipt(row as unknown as ReceiptPositions)
        return
      case 'user_presence':
        if (action !== 'DELETE') this.putPresence(String(row['user_id']), row as Partial<wire.Presence>)
        return
      case 'message_reactions':
        return this.#applyReactionRow(action, row)
      case 'user_conversations':
        if (!this.#rows.has(String(row['id']))) this.#settings.onIncomplete()
        return
    }
  }

  #applyMessageRow(action: string, row: MessageRow): void {
    if (action === 'DELETE') {
      // The message was deleted for good, or only hidden. `/sync` shows which is the case.
      return this.#settings.onIncomplete()
    }
    const conversation = this.#rows.get(row.conversation_id)
    if (!conversation) this.#settings.onIncomplete()
    const isNew = !conversation || row.seq > conversation.last_seq
    this.#putMessage(fromRow(row))
    if (conversation) {
      this.#rows.set(row.conversation_id, withMessage(conversation, row))
      this.touchList()
    }
    if (action === 'INSERT' && isNew && row.sender_id !== this.#settings.userId) {
      this.#settings.onReceived(toMessage(fromRow(row)))
    }
  }

  /**
   * Shows an added reaction at once and confirms it with `/sync`. The row of a removed reaction
   * contains only the reaction's id, so only `/sync` shows which message has changed.
   */
  #applyReactionRow(action: string, row: Record<string, unknown>): void {
    const [messageId, conversationId] = [String(row['message_id']), String(row['conversation_id'])]
    const isAdded = action === 'INSERT'
    // Messages that are not in memory are loaded later, with their reactions.
    const isShown = isAdded ? this.history(conversationId)?.get(messageId) : this.#entries.size > 0
    if (!isShown) return
    this.#settings.onIncomplete()
    if (!isAdded) return
    const early = this.#earlyReactions.get(messageId) ?? []
    this.#earlyReactions.set(messageId, [
      ...early,
      { reaction: String(row['reaction']), userId: String(row['user_id']) },
    ])
    this.touch(conversationId)
  }

  #applyEvent(name: string, payload: Record<string, unknown>): void {
    if (name === 'receipt') return this.#putReceipt(payload as unknown as ReceiptPositions)
    if (name !== 'conversation.updated') return
    const id = String(payload['conversation_id'])
    const held = this.#rows.get(id)
    // The conversation is unknown, or hidden and perhaps cleared: `/sync` shows which is the case.
    if (!held || payload['hidden'] === true) return this.#settings.onIncomplete()
    this.#rows.set(id, withEvent(held, payload))
    this.touch(id)
    this.touchList()
  }

  #forget(): void {
    this.#rows.clear()
    this.#receipts.clear()
    this.#earlyReactions.clear()
    this.#listed = null
    for (const { history } of this.#entries.values()) history.forget()
    this.#touchAll()
    this.touchList()
  }

  #putMessage(message: HeldMessage): void {
    const { conversation_id } = message.row
    // Conversations without messages in memory load them when they are displayed.
    const entry = this.#entries.get(conversation_id)
    if (!entry) return
    if (entry.history.upsert(message)) this.#settings.onIncomplete()
    this.touch(conversation_id)
  }

  #putReceipt(receipt: ReceiptPositions): void {
    if (receipt.user_id === this.#settings.userId) return
    this.#receipts.put(receipt)
    this.touch(receipt.conversation_id)
  }

  #removeConversation(id: string): void {
    this.#rows.delete(id)
    this.#receipts.forget(id)
    const entry = this.#entries.get(id)
    entry?.history.forget()
    if (entry && entry.opened > 0) entry.history.status = 'not_found'
    this.touch(id)
    this.touchList()
  }

  // Snapshots

  #rebuildList(): void {
    this.#isListDirty = false
    const before = new Map(this.#state.conversations.map((row) => [row.id, row]))
    const conversations = [...this.#rows.values()].map((row): Conversation => {
      const shown = this.overlay.onConversation(row)
      // The text of a displayed conversation is in its composer. If the list contained it as well,
      // typing and sending would render the list.
      const isDisplayed = (this.#entries.get(row.id)?.opened ?? 0) > 0
      const draft = (isDisplayed ? undefined : this.#settings.draft(row.id)) ?? shown.draft
      const next = draft === shown.draft ? shown : { ...shown, draft }
      const held = before.get(row.id)
      return held && isEqual(held, next) ? held : next
    })
    conversations.sort(byActivity)
    const { conversations: shown, conversationsStatus, unread } = this.#state
    const counted = conversationsStatus === 'ready' ? countUnread(conversations) : unread
    this.#change({
      conversations: haveSameItems(conversations, shown) ? shown : conversations,
      unread: isEqual(counted, unread) ? unread : counted,
    })
  }

  #rebuildTimelines(): void {
    const timelines: Record<string, Timeline> = { ...this.#state.timelines }
    for (const id of this.#dirty) {
      const entry = this.#entries.get(id)
      if (entry) timelines[id] = this.#build(id, entry)
      else delete timelines[id]
    }
    const isSame = [...this.#dirty].every((id) => timelines[id] === this.#state.timelines[id])
    this.#dirty.clear()
    this.#change({
      timelines: isSame ? this.#state.timelines : timelines,
      unsentCount: this.#settings.outgoingCount(),
    })
  }

  #build(conversationId: string, { history, builder }: Entry): Timeline {
    return builder.build({
      userId: this.#settings.userId,
      conversationId,
      history,
      overlay: this.overlay,
      outgoing: this.#settings.outgoing(conversationId),
      others: this.#receipts.of(conversationId),
      ownReadSeq: this.#rows.get(conversationId)?.last_read_seq ?? 0,
      reactions: this.#earlyReactions,
      people: this.#people.byId,
    })
  }

  #entry(conversationId: string): Entry {
    let entry = this.#entries.get(conversationId)
    if (!entry) {
      entry = { history: new History(), builder: new TimelineBuilder(), opened: 0 }
      this.#entries.set(conversationId, entry)
      this.touch(conversationId)
    }
    return entry
  }

  /** Returns the same object each time, because a new one would look like a change. */
  #emptyTimeline(conversationId: string): Timeline {
    this.#entry(conversationId)
    return this.getState().timelines[conversationId]!
  }

  #dropOldTimelines(): void {
    for (const [id, { opened }] of this.#entries) {
      if (this.#entries.size <= MAX_TIMELINES) return
      if (opened > 0) continue
      this.#entries.delete(id)
      this.touch(id)
    }
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      for (const listener of this.#listeners) listener()
    })
  }
}

/** Compares small values as JSON. */
const isEqual = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b)
