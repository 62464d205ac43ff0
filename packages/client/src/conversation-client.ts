// One conversation. The code that loads messages (`paging.ts`), determines what was read
// (`reading.ts`) and changes messages (`actions.ts`) is loaded when the first conversation is
// displayed.

import type { ConversationClient, SendOptions } from './chat-client'
import type { ReportReason } from './api'
import type { Engine } from './engine'
import type { History } from './history'
import { randomId } from './ids'
import type { Reader } from './reading'
import type { EarlierWording, Jump, Result, Timeline } from './types'
import type * as wire from './wire'

export class Conversation implements ConversationClient {
  readonly #engine: Engine
  /** Determines what the user has read, while the conversation is displayed. */
  reader: Reader | null = null
  /** The lowest visible row that the list has reported. */
  visible: { seq: number; isAtEnd: boolean } | null = null
  /**
   * True until it is decided which messages are shown first. Until then, nothing counts as read,
   * because the end of the conversation may be displayed for a moment before its first unread
   * message.
   */
  isOpening = false
  #opened = 0
  #release: (() => void)[] = []
  #jumps = 0
  /**
   * Counts the user's moves to another position. A page that was requested before the latest move
   * does not change what is displayed.
   */
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

  /** Loads the displayed messages again if they were forgotten or could not be loaded. */
  reload(): void {
    if (this.#opened === 0) return
    const { status, pageError } = this.loaded
    if (pageError) this.change((history) => (history.pageError = null))
    if (status !== 'ready' && status !== 'loading') void this.#load()
  }

  /** Called after every change of the state, which may have added messages. */
  changed(): void {
    this.reader?.changed()
  }

  loadOlder(): Promise<void> {
    return this.#showFailure(this.#engine.act('loadBeside', this, 'before'))
  }

  loadNewer(): Promise<void> {
    return this.#showFailure(this.#engine.act('loadBeside', this, 'after'))
  }

  jumpTo(messageId: string): Promise<Result<null>> {
    this.#moves += 1
    return this.#engine.act('jumpTo', this, this.#untilMoved(), messageId)
  }

  jumpToNewest(): Promise<void> {
    this.#moves += 1
    return this.#showFailure(this.#engine.act('jumpToNewest', this, this.#untilMoved()))
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

  remove(messageId: string, options?: { forMe?: boolean }): Promise<Result<null>> {
    return this.#engine.act('remove', this.id, messageId, options)
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
    void this.#engine.act('show', this, lowest)
  }

  markRead(): Promise<Result<null>> {
    return this.#engine.act('markRead', this.id)
  }

  markUnread(messageId?: string): Promise<Result<null>> {
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
    const { range } = this.loaded
    if (!range) return this.reload()
    if (range.to === Infinity) return
    const last = this.#engine.store.row(this.id)?.last_seq
    if (last === undefined) return void this.jumpToNewest()
    this.goToEnd((history) => history.displayEnd(last))
    void this.loadOlder()
  }

  /** Returns a function that returns true until the user's next move. */
  #untilMoved(): () => boolean {
    const moves = this.#moves
    return () => moves === this.#moves
  }

  #enter(): void {
    const { id } = this
    const engine = this.#engine
    this.#release = [engine.store.hold(id), engine.connection.watch(id)]
    this.isOpening = true
  }

  #leave(): void {
    this.stopTyping()
    this.reader?.close()
    this.reader = null
    this.visible = null
    // The line above the first unread message and the jump belong to this visit. The next visit
    // must not begin with them.
    this.change((history) => {
      history.firstUnreadSeq = null
      history.jump = null
    })
    for (const release of this.#release.splice(0)) release()
  }

  async #load(at?: string): Promise<void> {
    const { status } = this.loaded
    if (status === 'loading' && at === undefined) return
    if (status !== 'ready') this.change((history) => (history.status = 'loading'))
    return this.#showFailure(this.#engine.act('loadFirst', this, this.#untilMoved(), at))
  }

  /** Shows in the timeline why messages could not be loaded. */
  async #showFailure(result: Promise<Result<null>>): Promise<void> {
    const { error } = await result
    if (!error) return
    this.change((history) => {
      if (history.status === 'ready') history.pageError = error
      else {
        history.status = error.status === 404 ? 'not_found' : 'error'
        history.error = error
      }
    })
  }

  // For the code that is loaded later

  /** Whether the conversation is displayed. */
  get isOpen(): boolean {
    return this.#opened > 0
  }

  /** What is loaded of the conversation, and how it is displayed. */
  get loaded(): History {
    return this.#engine.store.openHistory(this.id)
  }

  change(change: (history: History) => void): void {
    this.#engine.store.changeHistory(this.id, change)
  }

  /** Requests that the list scrolls. Does nothing if the user has left in the meantime. */
  jump(target: Jump['target']): void {
    if (!this.isOpen) return
    this.#jumps += 1
    const number = this.#jumps
    this.change((history) => (history.jump = { number, target }))
  }

  goToEnd(display: (history: History) => void): void {
    this.change(display)
    this.jump({ at: 'newest' })
  }
}
