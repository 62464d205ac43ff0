// How far the other members of each conversation have read and received messages.

import type * as wire from './wire'

/** How far a member has read and received messages, as `seq`. */
export interface Progress {
  readonly read: number
  readonly delivered: number
}

/** The fields of a receipt. Events contain only the position that changed. */
export interface ReceiptPositions {
  conversation_id: string
  user_id: string
  last_read_seq?: number
  last_delivered_seq?: number
}

const NONE: ReadonlyMap<string, Progress> = new Map()

export class Receipts {
  readonly #conversations = new Map<string, Map<string, Progress>>()

  of(conversationId: string): ReadonlyMap<string, Progress> {
    return this.#conversations.get(conversationId) ?? NONE
  }

  all(): ReceiptPositions[] {
    return [...this.#conversations].flatMap(([conversation_id, members]) =>
      [...members].map(([user_id, { read, delivered }]) => ({
        conversation_id,
        user_id,
        last_read_seq: read,
        last_delivered_seq: delivered,
      })),
    )
  }

  /** Positions never move back, so the order in which receipts arrive does not matter. */
  put({ conversation_id, user_id, last_read_seq = 0, last_delivered_seq = 0 }: ReceiptPositions): void {
    const members = this.#conversations.get(conversation_id) ?? new Map<string, Progress>()
    const { read, delivered } = members.get(user_id) ?? { read: 0, delivered: 0 }
    members.set(user_id, { read: Math.max(read, last_read_seq), delivered: Math.max(delivered, last_delivered_seq) })
    this.#conversations.set(conversation_id, members)
  }

  /** Stores the positions of the other member that the conversation's row contains. */
  putPeer({ id, other_user, peer_last_read_seq, peer_last_delivered_seq }: wire.Conversation): void {
    if (!other_user || (peer_last_read_seq === null && peer_last_delivered_seq === null)) return
    this.put({
      conversation_id: id,
      user_id: other_user.id,
      last_read_seq: peer_last_read_seq ?? 0,
      last_delivered_seq: peer_last_delivered_seq ?? 0,
    })
  }

  forget(conversationId: string): void {
    this.#conversations.delete(conversationId)
  }

  clear(): void {
    this.#conversations.clear()
  }
}
