// Builds the snapshot of one conversation. Messages that did not change remain the same objects.

import type { History } from './history'
import { fromRow, preview, toMessage, type HeldMessage, type MessageRow } from './messages'
import { withReaction, type Change, type Overlay } from './overlay'
import type { Outgoing } from './outbox'
import type { Progress } from './receipts'
import type { ChatError, MessageState, Person, Timeline, TimelineMessage } from './types'
import type * as wire from './wire'

export interface TimelineInputs {
  userId: string
  conversationId: string
  history: History
  overlay: Overlay
  /** Unsent messages of the conversation, in the order in which they were written. */
  outgoing: readonly Outgoing[]
  /** How far the other members have read and received messages, by user id. */
  others: ReadonlyMap<string, Progress>
  ownReadSeq: number
  /** Early reactions, by message id: their rows arrived before a message that contains them. */
  reactions: ReadonlyMap<string, readonly { reaction: string; userId: string }[]>
  people: ReadonlyMap<string, Person>
}

interface Cached {
  readonly held: HeldMessage
  readonly changes: readonly Change[]
  /** What else the view depends on: state, sender's name, readers and early reactions. */
  readonly marks: string
  readonly view: TimelineMessage
}

export class TimelineBuilder {
  #cache = new Map<string, Cached>()
  #last: Timeline | null = null

  build(inputs: TimelineInputs): Timeline {
    const { history, conversationId } = inputs
    const { range } = history
    const hasNewer = range !== undefined && range.to !== Infinity
    const stored = this.#storedMessages(inputs)
    const unsent = hasNewer ? [] : unsentMessages(inputs, stored)
    const next: Timeline = {
      conversationId,
      status: history.status,
      error: history.error,
      messages: this.#sameOr([...stored, ...unsent]),
      hasOlder: range !== undefined && range.from > 0,
      hasNewer,
      isLoadingOlder: history.isLoadingOlder,
      isLoadingNewer: history.isLoadingNewer,
      pageError: history.pageError,
      firstUnreadSeq: history.firstUnreadSeq,
      jump: history.jump,
    }
    const last = this.#last
    if (last && (Object.keys(next) as (keyof Timeline)[]).every((key) => next[key] === last[key])) return last
    this.#last = next
    return next
  }

  #storedMessages(inputs: TimelineInputs): TimelineMessage[] {
    const cache = new Map<string, Cached>()
    const views: TimelineMessage[] = []
    const positions = [...inputs.others]
    for (const held of inputs.history.messages) {
      const { id, seq, sender_id } = held.row
      const changes = inputs.overlay.ofMessage(id)
      if (changes.some(({ hides }) => hides)) continue
      const early = inputs.reactions.get(id)
      const readers = positions
        .filter(([userId, { read }]) => read >= seq && userId !== sender_id)
        .map(([userId]) => userId)
      if (inputs.ownReadSeq >= seq && sender_id !== inputs.userId) readers.push(inputs.userId)
      const state = sender_id === inputs.userId ? progress(seq, positions) : 'sent'
      const name = inputs.people.get(sender_id ?? '')?.full_name ?? ''
      const marks = [state, name, ...readers, ...(early ?? []).map(({ reaction, userId }) => reaction + userId)].join()
      const before = this.#cache.get(id)
      const isSame = before && before.held === held && before.marks === marks && sameItems(before.changes, changes)
      const entry = isSame ? before : { held, changes, marks, view: viewOf(inputs, held, changes, state, readers) }
      cache.set(id, entry)
      views.push(entry.view)
    }
    this.#cache = cache
    return views
  }

  /**
   * Reuses unchanged objects. Unsent messages are rebuilt each time, so their fields are compared.
   */
  #sameOr(messages: readonly TimelineMessage[]): readonly TimelineMessage[] {
    const before = this.#last?.messages ?? []
    const kept = messages.map((message, index) => {
      const other = before[index]
      return other && other !== message && message.seq === Infinity && sameFields(other, message) ? other : message
    })
    return sameItems(before, kept) ? before : kept
  }
}

function viewOf(
  inputs: TimelineInputs,
  held: HeldMessage,
  changes: readonly Change[],
  state: MessageState,
  readers: string[],
): TimelineMessage {
  const { userId, people, reactions } = inputs
  let message: wire.Message = toMessage(held)
  for (const early of reactions.get(message.id) ?? [])
    message = withReaction(message, early.reaction, early.userId, true, early.userId === userId)
  for (const { onMessage } of changes) message = onMessage?.(message) ?? message
  return {
    ...storedView(message, senderOf(people, message.sender_id), userId),
    read_by: readers,
    delivery_status: state === 'read' || state === 'delivered' ? state : 'sent',
    state,
    isChanging: changes.length > 0,
  }
}

/** A stored message, also if no timeline displays it. `sender`: if the message does not name one. */
export function storedView(message: wire.Message, sender: wire.Sender | null, userId: string): TimelineMessage {
  const { id, client_message_id, sender_id } = message
  const isOwn = sender_id === userId
  return {
    ...message,
    sender: message.sender ?? sender,
    key: isOwn ? (client_message_id ?? id) : id,
    state: 'sent',
    isOwn,
    error: null,
    canRetry: false,
    isChanging: false,
  }
}

/** Returns the sender of a message. Rows from the socket contain only the sender's id. */
export function senderOf(people: ReadonlyMap<string, Person>, id: string | null): wire.Sender | null {
  const person = people.get(id ?? '')
  return person ? { id: person.id, full_name: person.full_name, avatar_url: person.avatar_url } : null
}

/**
 * Returns `read` or `delivered` if this is true for all other members who share receipts, otherwise
 * `sent`.
 */
function progress(seq: number, positions: readonly (readonly [string, Progress])[]): MessageState {
  if (positions.length === 0) return 'sent'
  if (positions.every(([, { read }]) => read >= seq)) return 'read'
  return positions.every(([, { delivered, read }]) => Math.max(delivered, read) >= seq) ? 'delivered' : 'sent'
}

function unsentMessages(inputs: TimelineInputs, stored: readonly TimelineMessage[]): TimelineMessage[] {
  const keys = new Set(stored.map(({ key }) => key))
  const sender = senderOf(inputs.people, inputs.userId)
  return inputs.outgoing.filter(({ key }) => !keys.has(key)).map((entry) => unsentView(entry, sender, inputs))
}

/** A message that is not stored, also if no timeline displays it. */
export function unsentView(
  entry: Outgoing,
  sender: wire.Sender | null,
  { userId, history }: { userId: string; history: History | undefined },
): TimelineMessage {
  const { key, replyToId, file, error } = entry
  const time = new Date(entry.createdAt).toISOString()
  const quoted = replyToId === null ? undefined : history?.get(replyToId)
  const row: MessageRow = {
    id: key,
    client_message_id: key,
    conversation_id: entry.conversationId,
    sender_id: userId,
    content: entry.content,
    message_type: entry.messageType,
    file_url: file?.url ?? null,
    file_name: file?.name ?? null,
    file_size: file?.size ?? null,
    file_type: file?.type ?? null,
    created_at: time,
    updated_at: time,
    is_edited: false,
    edited_at: null,
    is_deleted: false,
    deleted_at: null,
    metadata: entry.metadata,
    mentions: [],
    reply_to_id: replyToId,
    seq: Infinity,
    rev: 0,
  }
  return {
    ...storedView(toMessage(fromRow(row)), sender, userId),
    reply_to: quoted ? preview(quoted.row) : null,
    state: entry.state,
    error,
    canRetry: error !== null && canRetry(error),
  }
}

/** Whether sending the same message again can succeed. A refused text stays refused. */
const canRetry = ({ status }: ChatError): boolean =>
  status === 0 || status === 403 || status === 404 || status >= 500 || status === 429

const sameItems = <T>(a: readonly T[], b: readonly T[]): boolean =>
  a.length === b.length && a.every((item, index) => item === b[index])

/** Compares the fields of an unsent message that can change. Its text cannot. */
const sameFields = (a: TimelineMessage, b: TimelineMessage): boolean =>
  a.key === b.key && a.state === b.state && a.error === b.error && a.seq === b.seq
