// One conversation: loading, sending, changing, reading and typing.

import type { ConversationClient, SendOptions } from './chat-client'
import type { ReportReason } from './api'
import type { Engine } from './engine'
import { ok, refused } from './errors'
import type { History, LoadedPage, PagePosition } from './history'
import { randomId } from './ids'
import type { Reader as AnyReader } from './reading'
import type { ChatError, EarlierWording, Jump, Result, Timeline } from './types'
import type * as wire from './wire'

/** The number of messages in a page. */
const PAGE_SIZE = 50

/** With more unread messages than this, the first page surrounds the first unread one. */
const MAX_UNREAD_AT_END = 30

export class Conversation implements ConversationClient {
  readonly #engine: Engine
  #reader: AnyReader | null = null
  /** What the list shows, for a reader that is still being loaded. */
  #visible: { seq: number; isAtEnd: boolean } | null = null
  #opened = 0
  #release: (() => void)[] = []
  /**
   * True until it is decided which messages are shown first. Nothing counts as read before, because
   * the end of the conversation may be displayed for a moment before its first unread message.
   */
  #isOpening = false
  #jumps = 0
  /** Counts the user's moves. A page that was requested before the last one does not change what is displayed. */
  #moves = 0

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

  /** Loads again what was displayed: everything was forgotten, or an attempt failed. */
  reload(): void {
    if (this.#opened === 0) return
    const { status, pageError } = this.#loaded
    if (pageError) this.#change((history) => (history.pageError = null))
    if (status !== 'ready' && status !== 'loading') void this.#load()
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

  jumpTo(messageId: string): Promise<Result<null>> {
    this.#moves += 1
    return this.#jumpTo(messageId, this.#untilMoved())
  }

  async jumpToNewest(): Promise<void> {
    this.#moves += 1
    const isWanted = this.#untilMoved()
    // The displayed part stays until the end is loaded.
    const error = this.#loaded.covers(Infinity) ? null : await this.#loadNewest(isWanted)
    if (error) return this.#failed(error)
    if (isWanted()) this.#goToEnd((history) => history.display(Infinity))
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
    this.#showOwn()
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
    this.#visible = lowest && { ...lowest, seq }
    if (this.#reader) this.#reader.show(this.#visible)
    else if (lowest) this.#startReading()
  }

  markRead(): Promise<Result<null>> {
    return this.#engine.act('markRead', this.id)
  }

  async markUnread(messageId?: string): Promise<Result<null>> {
    if (!this.#reader) await this.#engine.loadActions().catch(() => {})
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

  /** Displays the end at once, even if it is not loaded: what the user writes belongs there. */
  #showOwn(): void {
    // A conversation that is still loading then opens at its end.
    this.#moves += 1
    const { range } = this.#loaded
    if (!range) return this.reload()
    if (range.to === Infinity) return
    const last = this.#engine.store.row(this.id)?.last_seq
    if (last === undefined) return void this.jumpToNewest()
    this.#goToEnd((history) => history.displayEnd(last))
    void this.loadOlder()
  }

  /** Returns true until the user's next move. */
  #untilMoved(): () => boolean {
    const moves = this.#moves
    return () => moves === this.#moves
  }

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
    this.#isOpening = true
  }

  #startReading(): void {
    if (this.#isOpening) return
    this.#engine.loadActions().then(
      (actions) => this.#read(actions),
      // Tried again when the list shows something else.
      () => {},
    )
  }

  #read({ Reader }: { Reader: typeof AnyReader }): void {
    if (this.#opened === 0 || this.#reader) return
    const { store, environment } = this.#engine
    this.#reader = new Reader({
      clock: environment.clock,
      page: environment.page,
      state: () => {
        const row = store.row(this.id)
        return {
          lastReadSeq: row?.last_read_seq ?? 0,
          isMarkedUnread: row?.marked_unread ?? false,
          newestSeq: this.#newestSeq,
        }
      },
      mark: async (seq) => (await this.#mark(seq)).error === null,
    })
    this.#reader.show(this.#visible)
  }

  #leave(): void {
    this.stopTyping()
    this.#reader?.close()
    this.#reader = null
    this.#visible = null
    // The line and the jump belong to this visit. The next one must not begin with them.
    this.#change((history) => {
      history.firstUnreadSeq = null
      history.jump = null
    })
    for (const release of this.#release.splice(0)) release()
  }

  async #load(at?: string): Promise<void> {
    const history = this.#loaded
    const isWanted = this.#untilMoved()
    const isFirst = history.status !== 'ready' && history.status !== 'loading'
    if (!isFirst && at === undefined && history.status === 'loading') return
    if (isFirst) this.#change((changed) => (changed.status = 'loading'))
    // Changes are followed from the cursor. A page that is loaded without one could miss changes.
    await this.#engine.whenPositioned()
    const row = this.#engine.store.row(this.id)
    const unread = row?.unread_count ?? 0
    const lastRead = row?.last_read_seq ?? 0
    let missing: ChatError | null = null
    if (isWanted()) {
      if (at !== undefined) await this.#jumpTo(at, isWanted)
      else if (unread > 0) missing = await this.#displayUnread(lastRead, unread, isWanted)
    }
    const error = history.range ? null : (missing ?? (await this.#loadNewest(isWanted)))
    if (error) this.#failed(error)
    else if (unread > 0) this.#showUnread(lastRead, at === undefined && !missing && isWanted())
    this.#isOpening = false
    this.#startReading()
  }

  /** Displays the part in which the unread messages begin. Loads it if necessary. */
  async #displayUnread(lastRead: number, unread: number, isWanted: () => boolean): Promise<ChatError | null> {
    const history = this.#loaded
    const first = lastRead + 1
    const held = history.countUnread(lastRead, this.#engine.options.userId)
    // The count arrives separately from the messages, and can be earlier.
    const areLate = held !== undefined && held < unread
    if (areLate || !history.covers(first)) {
      const isNearEnd = unread <= MAX_UNREAD_AT_END
      const error = isNearEnd ? await this.#loadNewest(isWanted) : null
      if (error || (isNearEnd && history.covers(first))) return error
      return this.#loadAround('first_unread', isWanted)
    }
    if (isWanted() && !history.contains(first)) this.#change((changed) => changed.display(first))
    return null
  }

  /** Places the line "New messages" above the first unread message; `isTarget` also jumps to it. */
  #showUnread(lastRead: number, isTarget: boolean): void {
    if (this.#opened === 0) return
    const { userId } = this.#engine.options
    const first = this.#loaded.messages.find(
      ({ row }) => row.seq > lastRead && row.sender_id !== userId && !row.is_deleted,
    )
    // In a later part of the conversation, the first unread message is not the first of that part.
    if (!first || !(isTarget || this.#loaded.contains(lastRead + 1))) return
    const { seq } = first.row
    this.#change((history) => (history.firstUnreadSeq = seq))
    if (!isTarget) return
    // The list reports what is visible there as soon as it has moved.
    this.#visible = null
    this.#jump({ at: 'first_unread', seq })
  }

  #failed(error: ChatError): void {
    this.#change((history) => {
      if (history.status === 'ready') history.pageError = error
      else {
        history.status = error.status === 404 ? 'not_found' : 'error'
        history.error = error
      }
    })
  }

  async #jumpTo(messageId: string, isWanted: () => boolean): Promise<Result<null>> {
    const seq = this.#loaded.get(messageId)?.row.seq
    if (seq !== undefined && this.#loaded.covers(seq)) {
      this.#change((history) => history.display(seq))
      return this.#jump({ at: 'message', messageId, seq })
    }
    const error = await this.#loadAround(messageId, isWanted)
    if (error?.status === 404) {
      this.#engine.emit({ type: 'message_unavailable', conversationId: this.id, messageId })
      if (!this.#loaded.range) await this.#loadNewest(isWanted)
    }
    return error ? refused(error) : ok(null)
  }

  async #loadNewest(isWanted: () => boolean): Promise<ChatError | null> {
    const { data, error } = await this.#engine.api.getPage({ conversationId: this.id, limit: PAGE_SIZE })
    if (error) return error
    const page = { messages: data.data, hasOlder: data.has_more, hasNewer: false }
    this.#addPage({ at: 'newest' }, page, isWanted() ? Infinity : null)
    return null
  }

  async #loadBeside(at: 'before' | 'after'): Promise<void> {
    const history = this.#loaded
    const { range, messages } = history
    const isOlder = at === 'before'
    const flag = isOlder ? 'isLoadingOlder' : 'isLoadingNewer'
    const isComplete = isOlder ? range?.from === 0 : range?.to === Infinity
    if (!range || isComplete || history[flag]) return
    // The part can be empty: an end that is not loaded yet, or one whose messages were all removed.
    const seq = (isOlder ? messages[0] : messages.at(-1))?.row.seq ?? (isOlder ? range.from : range.to)
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
    // The anchor is beside this end, so that the end that is trimmed is the other one. The user may
    // have moved to another part meanwhile.
    this.#addPage({ at, seq }, page, history.contains(seq) ? seq : null)
  }

  async #loadAround(anchor: string, isWanted: () => boolean): Promise<ChatError | null> {
    const { api } = this.#engine
    const { data, error } = await api.getPage({ conversationId: this.id, around: anchor, limit: PAGE_SIZE })
    if (error) return error
    const page = { messages: data.data, hasOlder: data.next_cursor !== null, hasNewer: data.prev_cursor !== null }
    const target = data.data.find(({ id }) => id === anchor) ?? data.data[Math.min(PAGE_SIZE / 2, data.data.length - 1)]
    this.#addPage({ at: 'around', anchor }, page, isWanted() ? (target?.seq ?? Infinity) : null)
    if (target?.id === anchor && isWanted()) this.#jump({ at: 'message', messageId: anchor, seq: target.seq })
    return null
  }

  /** `anchor`: the position to display; null leaves what is displayed. */
  #addPage(position: PagePosition, page: LoadedPage, anchor: number | null): void {
    if (anchor !== null) this.#change((history) => history.display(anchor))
    this.#engine.store.addPage(this.id, position, page)
    // If the page reaches the end, the anchor moves there, so that trimming does not drop the end.
    // Without the end, new messages would not be displayed.
    this.#change((history) => {
      if (history.range?.to === Infinity && position.at !== 'before') history.display(Infinity)
    })
  }

  #goToEnd(display: (history: History) => void): void {
    this.#change(display)
    this.#jump({ at: 'newest' })
  }

  #jump(target: Jump['target']): Result<null> {
    // The user may have left while the target was loaded.
    if (this.#opened === 0) return ok(null)
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
