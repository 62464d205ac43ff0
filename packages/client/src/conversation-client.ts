// One conversation: loading, sending, changing, reading and typing.

import type { ConversationClient, SendOptions } from './chat-client'
import type { ReportReason } from './api'
import type { Engine } from './engine'
import { ok, refused } from './errors'
import type { History, LoadedPage, Position } from './history'
import { randomId } from './ids'
import { withReaction } from './overlay'
import { Reader } from './reading'
import { TypingReporter } from './typing'
import type { ChatError, EarlierWording, Jump, Result, Timeline } from './types'
import type * as wire from './wire'

/** Messages of a page. */
const PAGE_SIZE = 50

/** More unread messages than this are loaded around the first one, and not from the end. */
const MAX_UNREAD_AT_END = 30

export class Conversation implements ConversationClient {
  private readonly typing: TypingReporter
  private reader: Reader | null = null
  private opened = 0
  private release: (() => void)[] = []
  private jumps = 0

  constructor(
    readonly id: string,
    private readonly engine: Engine,
  ) {
    this.typing = new TypingReporter(engine.environment.clock, (isTyping) => void engine.api.setTyping(id, isTyping))
  }

  getTimeline(): Timeline {
    return this.engine.store.getTimeline(this.id)
  }

  subscribe(listener: () => void): () => void {
    return this.engine.store.subscribe(listener)
  }

  // Displaying

  open({ at }: { at?: string } = {}): () => void {
    this.opened += 1
    if (this.opened === 1) this.enter()
    void this.load(at)
    let isClosed = false
    return () => {
      if (isClosed) return
      isClosed = true
      this.opened -= 1
      if (this.opened === 0) this.leave()
    }
  }

  /** Loads again what was displayed: everything was forgotten, or the first attempt failed. */
  reload(): void {
    if (this.opened > 0 && this.loaded.status !== 'ready' && this.loaded.status !== 'loading') void this.load()
  }

  /** New messages arrived. */
  changed(): void {
    this.reader?.changed()
  }

  async loadOlder(): Promise<void> {
    const history = this.loaded
    const { range } = history
    const first = history.messages[0]
    if (!range || range.from === 0 || !first || history.isLoadingOlder) return
    const { seq } = first.row
    this.change((changed) => (changed.isLoadingOlder = true))
    const { data, error } = await this.engine.api.getPage({ conversationId: this.id, before: seq, limit: PAGE_SIZE })
    this.change((changed) => {
      changed.isLoadingOlder = false
      changed.pageError = error
    })
    // Beside the older end, so that the end that is trimmed is the newer one.
    if (data) this.addPage({ at: 'before', seq }, { messages: data.data, hasOlder: data.has_more, hasNewer: true }, seq)
  }

  async loadNewer(): Promise<void> {
    const history = this.loaded
    const { range } = history
    const last = history.messages.at(-1)
    if (!range || range.to === Infinity || !last || history.isLoadingNewer) return
    const { seq } = last.row
    this.change((changed) => (changed.isLoadingNewer = true))
    const { data, error } = await this.engine.api.getPage({ conversationId: this.id, after: seq, limit: PAGE_SIZE })
    this.change((changed) => {
      changed.isLoadingNewer = false
      changed.pageError = error
    })
    if (data) this.addPage({ at: 'after', seq }, { messages: data.data, hasOlder: true, hasNewer: data.has_more }, seq)
  }

  async jumpTo(messageId: string): Promise<Result<null>> {
    const held = this.loaded.get(messageId)
    if (held) {
      this.change((history) => history.display(held.row.seq))
      if (this.loaded.range) return this.jump({ at: 'message', messageId, seq: held.row.seq })
      this.change((history) => history.display(Infinity))
    }
    const error = await this.loadAround(messageId)
    if (error?.status === 404) {
      this.engine.emit({ type: 'message_unavailable', conversationId: this.id, messageId })
      if (!this.loaded.range) await this.loadNewest()
    }
    return error ? refused(error) : ok(null)
  }

  async jumpToNewest(): Promise<void> {
    this.change((history) => history.display(Infinity))
    if (!this.loaded.range) await this.loadNewest()
    this.jump({ at: 'newest' })
  }

  // Sending

  send(content: string, { replyToId, metadata, messageType, file }: SendOptions = {}): string {
    const key = randomId()
    this.typing.stop()
    this.engine.drafts.clear(this.id)
    this.engine.outbox.add({
      key,
      conversationId: this.id,
      content,
      messageType: messageType ?? (file ? (file.type.startsWith('image/') ? 'image' : 'file') : 'text'),
      replyToId: replyToId ?? null,
      metadata: (metadata ?? {}) as wire.Message['metadata'],
      file: file ?? null,
    })
    const { range } = this.loaded
    if (range && range.to !== Infinity) void this.jumpToNewest()
    return key
  }

  retry(key: string): void {
    this.engine.outbox.retry(key)
  }

  discard(key: string): void {
    this.engine.outbox.discard(key)
  }

  // Changing

  edit(messageId: string, content: string): Promise<Result<null>> {
    const text = content.trim()
    return this.engine.change(
      'edit',
      'answer',
      this.over(messageId, (message) => ({ ...message, content: text, is_edited: true })),
      async () => {
        const before = this.loaded.get(messageId)
        const first = await this.engine.api.editMessage(messageId, text, before && { rev: before.row.rev })
        if (first.error?.code !== 'stale_revision' || !before) return this.keep(first)
        // A reaction makes a revision outdated, too. Only another text is a conflict.
        const current = this.keep(await this.engine.api.getMessage(messageId))
        if (!current.data || current.data.content !== before.row.content || current.data.is_deleted) return first
        return this.keep(await this.engine.api.editMessage(messageId, text, { rev: current.data.rev }))
      },
    )
  }

  remove(messageId: string, { forMe = false }: { forMe?: boolean } = {}): Promise<Result<null>> {
    const change = forMe
      ? { conversationId: this.id, messageId, hides: true }
      : this.over(messageId, (message) => ({
          ...message,
          content: '',
          is_deleted: true,
          reactions: [],
          reply_to: null,
        }))
    return this.engine.change(forMe ? 'hide' : 'delete', 'sync', change, () =>
      this.engine.api.deleteMessage(messageId, { forMe }),
    )
  }

  react(messageId: string, reaction: string, isOn?: boolean): Promise<Result<null>> {
    const { userId } = this.engine.options
    const shown = this.getTimeline().messages.find(({ id }) => id === messageId)
    const value = isOn ?? !shown?.reactions.some((held) => held.reaction === reaction && held.me)
    const change = this.over(messageId, (message) => withReaction(message, reaction, userId, value, true))
    const { api } = this.engine
    return this.engine.change('react', 'sync', change, () =>
      this.engine.wishes.wish(`react ${messageId} ${reaction}`, value, (wanted) =>
        wanted ? api.addReaction(messageId, reaction) : api.removeReaction(messageId, reaction),
      ),
    )
  }

  pinMessage(messageId: string, isPinned: boolean): Promise<Result<null>> {
    const change = this.over(messageId, (message) => ({ ...message, is_pinned: isPinned }))
    return this.engine.change('pin_message', 'sync', change, () =>
      this.engine.wishes.wish(`pin ${messageId}`, isPinned, (wanted) => this.engine.api.pin(messageId, wanted)),
    )
  }

  async report(messageId: string, reason: ReportReason, note?: string): Promise<Result<null>> {
    const { error } = await this.engine.api.report(messageId, reason, note)
    return error ? refused(error) : ok(null)
  }

  history(messageId: string): Promise<Result<readonly EarlierWording[]>> {
    return this.engine.api.getHistory(messageId)
  }

  // Reading

  setVisible(lowest: { seq: number; isAtEnd: boolean } | null): void {
    const seq = lowest && Number.isFinite(lowest.seq) ? lowest.seq : this.newestSeq
    // The end that is trimmed is the one far from here.
    const isNewest = lowest?.isAtEnd && this.loaded.range?.to === Infinity
    if (lowest && this.loaded.contains(seq)) this.loaded.anchor = isNewest ? Infinity : seq
    this.reader?.show(lowest && { ...lowest, seq })
  }

  markRead(): Promise<Result<null>> {
    return this.mark(this.engine.store.row(this.id)?.last_seq ?? this.newestSeq)
  }

  async markUnread(messageId?: string): Promise<Result<null>> {
    this.reader?.keepUnread()
    const seq = messageId === undefined ? undefined : this.loaded.get(messageId)?.row.seq
    const unread = seq === undefined ? undefined : this.countUnread(seq - 1)
    return this.engine.change(
      'mark_unread',
      'sync',
      {
        conversationId: this.id,
        onConversation: (row) => ({
          ...row,
          marked_unread: true,
          ...(seq !== undefined && { last_read_seq: seq - 1, unread_count: unread ?? row.unread_count }),
        }),
      },
      () => this.engine.api.markConversationUnread(this.id, messageId),
    )
  }

  // Writing

  setDraft(text: string): void {
    if (text === this.getDraft()) return
    this.engine.drafts.set(this.id, text)
    this.typing.input(text)
  }

  getDraft(): string {
    return this.engine.drafts.get(this.id) ?? this.engine.store.row(this.id)?.draft ?? ''
  }

  stopTyping(): void {
    this.typing.stop()
  }

  // Loading

  private get loaded(): History {
    return this.engine.store.history(this.id) ?? this.create()
  }

  private create(): History {
    this.change(() => {})
    return this.engine.store.history(this.id)!
  }

  private get newestSeq(): number {
    return this.loaded.messages.at(-1)?.row.seq ?? 0
  }

  private enter(): void {
    const { engine, id } = this
    this.release = [engine.store.hold(id), engine.connection.watch(id)]
    this.change((history) => {
      history.firstUnreadSeq = null
      history.jump = null
    })
    this.reader = new Reader({
      clock: engine.environment.clock,
      page: engine.environment.page,
      state: () => {
        const row = engine.store.row(id)
        return {
          lastReadSeq: row?.last_read_seq ?? 0,
          isMarkedUnread: row?.marked_unread ?? false,
          newestSeq: this.newestSeq,
        }
      },
      mark: async (seq) => (await this.mark(seq)).error === null,
    })
  }

  private leave(): void {
    this.typing.stop()
    this.reader?.close()
    this.reader = null
    // The list shows the draft from now on, also if the user was typing until now.
    this.engine.store.touchList()
    for (const release of this.release.splice(0)) release()
  }

  private async load(at?: string): Promise<void> {
    const history = this.loaded
    const isFirst = history.status !== 'ready' && history.status !== 'loading'
    if (!isFirst && at === undefined && history.status === 'loading') return
    if (isFirst) this.change((changed) => (changed.status = 'loading'))
    // Changes are followed from the cursor on, so a page that was loaded earlier could miss some.
    await this.engine.whenPositioned()
    const row = this.engine.store.row(this.id)
    const unread = row?.unread_count ?? 0
    const lastRead = row?.last_read_seq ?? 0
    if (at !== undefined) await this.jumpTo(at)
    else if (!history.range && unread > MAX_UNREAD_AT_END) await this.loadAround('first_unread')
    const error = history.range ? null : await this.loadNewest()
    if (error) return this.failed(error)
    if (unread > 0) this.showUnread(lastRead, at === undefined)
  }

  /** Places the line "New messages". */
  private showUnread(lastRead: number, isTarget: boolean): void {
    const { userId } = this.engine.options
    const first = this.loaded.messages.find(
      ({ row }) => row.seq > lastRead && row.sender_id !== userId && !row.is_deleted,
    )
    if (!first) return
    const { seq } = first.row
    this.change((history) => (history.firstUnreadSeq = seq))
    if (isTarget) this.jump({ at: 'first_unread', seq })
  }

  private failed(error: ChatError): void {
    this.change((history) => {
      if (history.status === 'ready') return
      history.status = error.status === 404 ? 'not_found' : 'error'
      history.error = error
    })
  }

  private async loadNewest(): Promise<ChatError | null> {
    const { data, error } = await this.engine.api.getPage({ conversationId: this.id, limit: PAGE_SIZE })
    if (error) return error
    this.addPage({ at: 'newest' }, { messages: data.data, hasOlder: data.has_more, hasNewer: false }, Infinity)
    return null
  }

  private async loadAround(anchor: string): Promise<ChatError | null> {
    const { data, error } = await this.engine.api.getPage({ conversationId: this.id, around: anchor, limit: PAGE_SIZE })
    if (error) return error
    const page = { messages: data.data, hasOlder: data.next_cursor !== null, hasNewer: data.prev_cursor !== null }
    const target = data.data.find(({ id }) => id === anchor) ?? data.data[Math.min(PAGE_SIZE / 2, data.data.length - 1)]
    this.addPage({ at: 'around', anchor }, page, target?.seq ?? Infinity)
    if (target?.id === anchor) this.jump({ at: 'message', messageId: anchor, seq: target.seq })
    return null
  }

  private addPage(position: Position, page: LoadedPage, anchor: number): void {
    this.change((history) => history.display(anchor))
    this.engine.store.addPage(this.id, position, page)
    // At the end new messages must be part of what is displayed.
    this.change((history) => {
      if (history.range?.to === Infinity && position.at !== 'before') history.display(Infinity)
    })
  }

  private jump(target: Jump['target']): Result<null> {
    this.jumps += 1
    const number = this.jumps
    this.change((history) => (history.jump = { number, target }))
    return ok(null)
  }

  private change(change: (history: History) => void): void {
    this.engine.store.changeHistory(this.id, change)
  }

  private over(messageId: string, onMessage: (message: wire.Message) => wire.Message) {
    return { conversationId: this.id, messageId, onMessage }
  }

  private keep(result: Result<wire.Message>): Result<wire.Message> {
    if (result.data) this.engine.store.putAnswer(result.data)
    return result
  }

  /** Unread messages of others behind a position, if the end is loaded. */
  private countUnread(after: number): number | undefined {
    const history = this.loaded
    const { userId } = this.engine.options
    if (history.range?.to !== Infinity) return undefined
    return history.messages.filter(({ row }) => row.seq > after && row.sender_id !== userId && !row.is_deleted).length
  }

  private async mark(seq: number): Promise<Result<null>> {
    const { engine, id } = this
    // The last message that is held up to here: the route takes messages, not positions.
    const last = this.loaded.messages.findLast(({ row }) => row.seq <= seq)
    const unread = this.countUnread(seq)
    const isRead = (row: wire.Conversation, left = row.unread_count) => ({
      ...row,
      marked_unread: false,
      last_read_seq: Math.max(row.last_read_seq, seq),
      unread_count: Math.min(row.unread_count, left),
    })
    const undo = engine.store.overlay.add({ conversationId: id, onConversation: (row) => isRead(row, unread) })
    const { data, error } = await engine.api.markConversationRead(id, last?.row.id)
    const row = engine.store.row(id)
    // The answer shows the result at once; the server tells this device of it a moment later, too.
    if (data && row) engine.store.putConversation(isRead(row, data.unread_count))
    undo()
    return error ? refused(error) : ok(null)
  }
}
