// Builds the snapshot of one conversation. Messages that did not change remain the same objects.

import type { History } from './history'
import { fromRow, preview, toMessage, type HeldMessage, type MessageRow } from './messages'
import { withReaction, type Overlay } from './overlay'
import type { Outgoing } from './outbox'
import type { Progress } from './receipts'
import { haveSameFields, haveSameItems } from './same'
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

/** How far another member has read and received messages. */
type Position = readonly [userId: string, progress: Progress]

interface Cached {
  /** Everything that the view depends on, to be compared by identity. */
  readonly parts: readonly unknown[]
  readonly view: TimelineMessage
}

export class TimelineBuilder {
  /** By `TimelineMessage.key`: the messages of the last snapshot. */
  #before = new Map<string, Cached>()
  #next = new Map<string, Cached>()
  #last: Timeline | null = null

  build(inputs: TimelineInputs): Timeline {
    const { history, conversationId } = inputs
    const { range } = history
    const hasNewer = range !== undefined && range.to !== Infinity
    this.#next = new Map()
    const positions = [...inputs.others]
    for (const held of history.messages) this.#addStored(inputs, held, positions)
    if (!hasNewer) for (const entry of inputs.outgoing) this.#addUnsent(inputs, entry)
    this.#before = this.#next
    const messages = [...this.#next.values()].map(({ view }) => view)
    const last = this.#last
    const next: Timeline = {
      conversationId,
      status: history.status,
      error: history.error,
      messages: last && haveSameItems(last.messages, messages) ? last.messages : messages,
      hasOlder: range !== undefined && range.from > 0,
      hasNewer,
      isLoadingOlder: history.isLoadingOlder,
      isLoadingNewer: history.isLoadingNewer,
      pageError: history.pageError,
      firstUnreadSeq: history.firstUnreadSeq,
      jump: history.jump,
    }
    this.#last = last && haveSameFields(next, last) ? last : next
    return this.#last
  }

  #addStored(inputs: TimelineInputs, held: HeldMessage, positions: readonly Position[]): void {
    const { userId, people, ownReadSeq } = inputs
    const { id, seq, sender_id } = held.row
    const changes = inputs.overlay.ofMessage(id)
    if (changes.some(({ hides }) => hides)) return
    const early = inputs.reactions.get(id) ?? []
    const readers = positions.filter(([other, { read }]) => read >= seq && other !== sender_id).map(([other]) => other)
    if (ownReadSeq >= seq && sender_id !== userId) readers.push(userId)
    const state = sender_id === userId ? progress(seq, positions) : 'sent'
    const person = people.get(sender_id ?? '')
    this.#add(keyOf(held.row, userId), [held, state, person, ...changes, ...readers, ...early], () => {
      let message: wire.Message = toMessage(held)
      for (const { reaction, userId: by } of early)
        message = withReaction(message, reaction, by, true, by === userId)
      for (const { onMessage } of changes) message = onMessage?.(message) ?? message
      return {
        ...storedView(message, senderOf(people, sender_id), userId),
        read_by: readers,
        delivery_status: state === 'read' || state === 'delivered' ? state : 'sent',
        state,
        isChanging: changes.length > 0,
      }
    })
  }

  #addUnsent(inputs: TimelineInputs, entry: Outgoing): void {
    const { userId, people, history } = inputs
    // The stored message arrived before the response to its request.
    if (this.#next.has(entry.key)) return
    const quoted = history.get(entry.replyToId ?? '')
    this.#add(entry.key, [entry, people.get(userId), quoted], () =>
      unsentView(entry, senderOf(people, userId), userId, quoted),
    )
  }

  /** Adds a message. Reuses the view of the last snapshot if all its parts are the same. */
  #add(key: string, parts: readonly unknown[], create: () => TimelineMessage): void {
    const before = this.#before.get(key)
    this.#next.set(key, before && haveSameItems(before.parts, parts) ? before : { parts, view: create() })
  }
}

/** Returns the key of a message. The user's own message keeps the key that it had while unsent. */
const keyOf = ({ id, client_message_id, sender_id }: MessageRow, userId: string): string =>
  sender_id === userId ? (client_message_id ?? id) : id

/**
 * Returns the view of a message, even if no timeline displays it. `sender` is used if the message
 * contains none.
 */
export function storedView(message: wire.Message, sender: wire.Sender | null, userId: string): TimelineMessage {
  return {
    ...message,
    sender: message.sender ?? sender,
    key: keyOf(message, userId),
    state: 'sent',
    isOwn: message.sender_id === userId,
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
function progress(seq: number, positions: readonly Position[]): MessageState {
  if (positions.length === 0) return 'sent'
  if (positions.every(([, { read }]) => read >= seq)) return 'read'
  return positions.every(([, { delivered, read }]) => Math.max(delivered, read) >= seq) ? 'delivered' : 'sent'
}

/** Returns the view of an unsent message, even if no timeline displays it. */
export function unsentView(
  { key, file, error, ...entry }: Outgoing,
  sender: wire.Sender | null,
  userId: string,
  quoted: HeldMessage | undefined,
): TimelineMessage {
  const time = new Date(entry.createdAt).toISOString()
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
    reply_to_id: entry.replyToId,
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
