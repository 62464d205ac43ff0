// One conversation: loading, sending, changing, reading and typing.

import type { ConversationClient, SendOptions } from './chat-client'
import type { ReportReason } from './api'
import type { Engine } from './engine'
import { ok, refused } from './errors'
import type { History, LoadedPage, PagePosition } from './history'
import { randomId } from './ids'
import { Reader } from './reading'
import type { ChatError, EarlierWording, Jump, Result, Timeline } from './types'
import type * as wire from './wire'

/** The number of messages in a page. */
const PAGE_SIZE = 50

/** With more unread messages than this, the first page surrounds the first unread one. */
const MAX_UNREAD_AT_END = 30

export class Conversation implements ConversationClient {
  readonly #engine: Engine
  #reader: Reader | null = null
  #opened = 0
  #release: (() => void)[] = []
  #jumps = 0

  constructor(
    readonly id: string,
    engine: Engine,
  ) {
    this.#engine = engine
  }

  getTimeline(): Timeline {
    return this.#engine.store.getTimeline(this.id)
  }

  subscribe(listener: () => void): () => void {
    return this.#engine.store.subscribe(listener)
  }

  // Displaying

  open({ at }: { at?: string } = {}): () => void {
    this.#opened += 1
    if (this.#opened === 1) this.#enter()
    void this.#load(at)
    let isClosed = false
    return () => {
      if (isClosed) return
      isClosed = true
      this.#opened -= 1
      if (this.#opened === 0) this.#leave()
    }
  }

  /** Loads the first page again if its messages were discarded or the first attempt failed. */
  reload(): void {
    if (this.#opened > 0 && this.#loaded.status !== 'ready' && this.#loaded.status !== 'loading') void this.#load()
  }

  /** Called after every change of the state, which may have added messages. */
  changed(): void {
    this.#reader?.changed()
  }

  loadOlder(): Promise<void> {
    return this.#loadBeside('before')
  }

  loadNewer(): Promise<void> {
    return this.#loadBeside('after')
  }

  async jumpTo(messageId: string): Promise<Result<null>> {
    const held = this.#loaded.get(messageId)
    if (held) {
      this.#change((history) => history.display(held.row.seq))
      if (this.#loaded.range) return this.#jump({ at: 'message', messageId, seq: held.row.seq })
      this.#change((history) => history.display(Infinity))
    }
    const error = await this.#loadAround(messageId)
    if (error?.status === 404) {
      this.#engine.emit({ type: 'message_unavailable', conversationId: this.id, messageId })
      if (!this.#loaded.range) await this.#loadNewest()
    }
    return error ? refused(error) : ok(null)
  }

  async jumpToNewest(): Promise<void> {
    this.#change((history) => history.display(Infinity))
    if (!this.#loaded.range) await this.#loadNewest()
    this.#jump({ at: 'newest' })
  }

  // Sending

  send(content: string, { replyToId, metadata, messageType, file }: SendOptions = {}): string {
    const key = randomId()
    this.stopTyping()
    this.#engine.drafts.clear(this.id)
    this.#engine.outbox.add({
      key,
      conversationId: this.id,
      content,
      messageType: messageType ?? (file ? (file.type.startsWith('image/') ? 'image' : 'file') : 'text'),
      replyToId: replyToId ?? null,
      metadata: (metadata ?? {}) as wire.Message['metadata'],
      file: file ?? null,
    })
    const { range } = this.#loaded
    if (range && range.to !== Infinity) void this.jumpToNewest()
    return key
  }

  retry(key: string): void {
    this.#engine.outbox.retry(key)
  }

  discard(key: string): void {
    this.#engine.outbox.discard(key)
  }

  // Changing

  edit(messageId: string, content: string): Promise<Result<null>> {
    return this.#engine.act('edit', this.id, messageId, content)
  }

  remove(messageId: string, { forMe = false }: { forMe?: boolean } = {}): Promise<Result<null>> {
    return this.#engine.act('remove', this.id, messageId, forMe)
  }

  react(messageId: string, reaction: string, isOn?: boolean): Promise<Result<null>> {
    return this.#engine.act('react', this.id, messageId, reaction, isOn)
  }

  pinMessage(messageId: string, isPinned: boolean): Promise<Result<null>> {
    return this.#engine.act('pinMessage', this.id, messageId, isPinned)
  }

  report(messageId: string, reason: ReportReason, note?: string): Promise<Result<null>> {
    return this.#engine.act('report', messageId, reason, note)
  }

  history(messageId: string): Promise<Result<readonly EarlierWording[]>> {
    return this.#engine.api.getHistory(messageId)
  }

  // Reading

  setVisible(lowest: { seq: number; isAtEnd: boolean } | null): void {
    const seq = lowest && Number.isFinite(lowest.seq) ? lowest.seq : this.#newestSeq
    // The anchor follows the reader, because the history is trimmed at the end farther from it.
    const isNewest = lowest?.isAtEnd && this.#loaded.range?.to === Infinity
    // At the end of an earlier part, messages that are loaded later are not visible at once.
    if (lowest && !isNewest) lowest = { ...lowest, isAtEnd: false }
    if (lowest && this.#loaded.contains(seq)) this.#loaded.anchor = isNewest ? Infinity : seq
    this.#reader?.show(lowest && { ...lowest, seq })
  }

  markRead(): Promise<Result<null>> {
    return this.#engine.act('markRead', this.id)
  }

  markUnread(messageId?: string): Promise<Result<null>> {
    this.#reader?.keepUnread()
    return this.#engine.act('markUnread', this.id, messageId)
  }

  // Writing

  setDraft(text: string): void {
    if (text === this.getDraft()) return
    this.#engine.drafts.set(this.id, text)
    void this.#engine.act('type', this, text)
  }

  getDraft(): string {
    return this.#engine.drafts.get(this.id) ?? this.#engine.store.row(this.id)?.draft ?? ''
  }

  stopTyping(): void {
    void this.#engine.act('type', this, '')
  }

  // Loading

  get #loaded(): History {
    return this.#engine.store.history(this.id) ?? this.#create()
  }

  #create(): History {
    this.#change(() => {})
    return this.#engine.store.history(this.id)!
  }

  get #newestSeq(): number {
    return this.#loaded.messages.at(-1)?.row.seq ?? 0
  }

  #enter(): void {
    const { id } = this
    const engine = this.#engine
    this.#release = [engine.store.hold(id), engine.connection.watch(id)]
    engine.loadActions().catch(() => {})
    this.#change((history) => {
      history.firstUnreadSeq = null
      history.jump = null
    })
    this.#reader = new Reader({
      clock: engine.environment.clock,
      page: engine.environment.page,
      state: () => {
        const row = engine.store.row(id)
        return {
          lastReadSeq: row?.last_read_seq ?? 0,
          isMarkedUnread: row?.marked_unread ?? false,
          newestSeq: this.#newestSeq,
        }
      },
      mark: async (seq) => (await this.#mark(seq)).error === null,
    })
  }

  #leave(): void {
    this.stopTyping()
    this.#reader?.close()
    this.#reader = null
    // The list shows the current draft from now on, even if the user was still typing.
    this.#engine.store.touchList()
    for (const release of this.#release.splice(0)) release()
  }

  async #load(at?: string): Promise<void> {
    const history = this.#loaded
    const isFirst = history.status !== 'ready' && history.status !== 'loading'
    if (!isFirst && at === undefined && history.status === 'loading') return
    if (isFirst) this.#change((changed) => (changed.status = 'loading'))
    // Changes are followed from the cursor. A page that is loaded without one could miss changes.
    await this.#engine.whenPositioned()
    const row = this.#engine.store.row(this.id)
    const unread = row?.unread_count ?? 0
    const lastRead = row?.last_read_seq ?? 0
    if (at !== undefined) await this.jumpTo(at)
    else if (!history.range && unread > MAX_UNREAD_AT_END) await this.#loadAround('first_unread')
    const error = history.range ? null : await this.#loadNewest()
    if (error) return this.#failed(error)
    if (unread > 0) this.#showUnread(lastRead, at === undefined)
  }

  /** Places the line "New messages" above the first unread message; `isTarget` also jumps to it. */
  #showUnread(lastRead: number, isTarget: boolean): void {
    const { userId } = this.#engine.options
    const first = this.#loaded.messages.find(
      ({ row }) => row.seq > lastRead && row.sender_id !== userId && !row.is_deleted,
    )
    // In a later part of the conversation, the first unread message is not the first of that part.
    if (!first || !(isTarget || this.#loaded.contains(lastRead + 1))) return
    const { seq } = first.row
    this.#change((history) => (history.firstUnreadSeq = seq))
    if (isTarget) this.#jump({ at: 'first_unread', seq })
  }

  #failed(error: ChatError): void {
    this.#change((history) => {
      if (history.status === 'ready') return
      history.status = error.status === 404 ? 'not_found' : 'error'
      history.error = error
    })
  }

  async #loadNewest(): Promise<ChatError | null> {
    const { data, error } = await this.#engine.api.getPage({ conversationId: this.id, limit: PAGE_SIZE })
    if (error) return error
    this.#addPage({ at: 'newest' }, { messages: data.data, hasOlder: data.has_more, hasNewer: false }, Infinity)
    return null
  }

  async #loadBeside(at: 'before' | 'after'): Promise<void> {
    const history = this.#loaded
    const { range, messages } = history
    const isOlder = at === 'before'
    const flag = isOlder ? 'isLoadingOlder' : 'isLoadingNewer'
    const end = isOlder ? messages[0] : messages.at(-1)
    const isComplete = isOlder ? range?.from === 0 : range?.to === Infinity
    if (!range || !end || isComplete || history[flag]) return
    const { seq } = end.row
    this.#change((changed) => (changed[flag] = true))
    const { data, error } = await this.#engine.api.getPage({ conversationId: this.id, [at]: seq, limit: PAGE_SIZE })
    this.#change((changed) => {
      changed[flag] = false
      changed.pageError = error
    })
    if (!data) return
    const page = {
      messages: data.data,
      hasOlder: !isOlder || data.has_more,
      hasNewer: isOlder || data.has_more,
    }
    // The anchor is at this end, so that the other end is trimmed.
    this.#addPage({ at, seq }, page, seq)
  }

  async #loadAround(anchor: string): Promise<ChatError | null> {
    const { api } = this.#engine
    const { data, error } = await api.getPage({ conversationId: this.id, around: anchor, limit: PAGE_SIZE })
    if (error) return error
    const page = { messages: data.data, hasOlder: data.next_cursor !== null, hasNewer: data.prev_cursor !== null }
    const target = data.data.find(({ id }) => id === anchor) ?? data.data[Math.min(PAGE_SIZE / 2, data.data.length - 1)]
    this.#addPage({ at: 'around', anchor }, page, target?.seq ?? Infinity)
    if (target?.id === anchor) this.#jump({ at: 'message', messageId: anchor, seq: target.seq })
    return null
  }

  #addPage(position: PagePosition, page: LoadedPage, anchor: number): void {
    this.#change((history) => history.display(anchor))
    this.#engine.store.addPage(this.id, position, page)
    // If the page reaches the end, the anchor moves there, so that trimming does not drop the end.
    // Without the end, new messages would not be displayed.
    this.#change((history) => {
      if (history.range?.to === Infinity && position.at !== 'before') history.display(Infinity)
    })
  }

  #jump(target: Jump['target']): Result<null> {
    this.#jumps += 1
    const number = this.#jumps
    this.#change((history) => (history.jump = { number, target }))
    return ok(null)
  }

  #change(change: (history: History) => void): void {
    this.#engine.store.changeHistory(this.id, change)
  }

  #mark(seq: number): Promise<Result<null>> {
    return this.#engine.act('markRead', this.id, seq)
  }
}
