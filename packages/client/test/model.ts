// A small model of one conversation on the server. Tests compare the state of clients with it.

import fc from 'fast-check'
import type { Input } from '../src/inputs'
import type * as wire from '../src/wire'
import { conversation, CONVERSATION, ME, message, PEER, receipt, rowOf, syncPage } from './fixtures'

export type Action =
  | { type: 'send'; isOwn: boolean; quotes: number }
  | { type: 'edit'; of: number }
  | { type: 'delete'; of: number }
  | { type: 'react'; of: number; isOwn: boolean }
  | { type: 'pin'; of: number }
  | { type: 'read'; share: number }

export const actions: fc.Arbitrary<Action[]> = fc.array(
  fc.oneof(
    fc.record({ type: fc.constant('send' as const), isOwn: fc.boolean(), quotes: fc.nat(3) }),
    fc.record({ type: fc.constant('edit' as const), of: fc.nat(20) }),
    fc.record({ type: fc.constant('delete' as const), of: fc.nat(20) }),
    fc.record({ type: fc.constant('react' as const), of: fc.nat(20), isOwn: fc.boolean() }),
    fc.record({ type: fc.constant('pin' as const), of: fc.nat(20) }),
    fc.record({ type: fc.constant('read' as const), share: fc.integer({ min: 0, max: 100 }) }),
  ),
  { minLength: 1, maxLength: 25 },
)

/** Data that reaches a client: an input from the socket, or a response with whole messages. */
export type Fact = { type: 'input'; input: Input } | { type: 'answer'; messages: readonly wire.Message[] }

export class Model {
  messages: readonly wire.Message[] = []
  readonly facts: Fact[] = []
  private rev = 0
  private readSeq = 0
  private time = Date.UTC(2026, 0, 1)

  constructor(steps: readonly Action[]) {
    for (const step of steps) this.run(step)
  }

  /** Returns the page of `/sync` that a client receives if it loads everything now. */
  fresh(): wire.SyncPage {
    const last = this.messages.at(-1)
    const { id, content, created_at, file_name, is_deleted, message_type, sender_id } = last ?? message({ seq: 0 })
    const row = conversation({
      rev: this.rev,
      last_seq: this.messages.length,
      ...(last && {
        last_message: { id, content, created_at, file_name, is_deleted, message_type, sender_id },
        last_message_id: id,
        last_message_at: created_at,
      }),
    })
    return syncPage({ conversations: [row], receipts: [receipt(PEER, this.readSeq)], messages: [...this.messages] })
  }

  private run(action: Action): void {
    const now = new Date((this.time += 1_000)).toISOString()
    switch (action.type) {
      case 'send':
        return this.send(action.isOwn ? ME : PEER, action.quotes, now)
      case 'edit':
        return this.change(action.of, (held) => ({
          ...held,
          content: `edited ${now}`,
          is_edited: true,
          edited_at: now,
          updated_at: now,
        }))
      case 'delete':
        return this.change(action.of, (held) => ({
          ...held,
          content: '',
          is_deleted: true,
          deleted_at: now,
          updated_at: now,
          reactions: [],
          reply_to: null,
          is_pinned: false,
        }))
      case 'react':
        return this.react(action.of, action.isOwn ? ME : PEER)
      case 'pin':
        return this.change(action.of, (held) => ({ ...held, is_pinned: !held.is_pinned }))
      case 'read':
        this.readSeq = Math.max(this.readSeq, Math.floor((this.messages.length * action.share) / 100))
        this.facts.push({
          type: 'input',
          input: {
            type: 'row',
            table: 'conversation_receipts',
            action: 'UPDATE',
            row: { ...receipt(PEER, this.readSeq) },
          },
        })
    }
  }

  private send(sender_id: string, quotes: number, now: string): void {
    const quoted = quotes === 0 ? undefined : this.messages[this.messages.length - quotes]
    const seq = this.messages.length + 1
    const sent = message({
      seq,
      sender_id,
      rev: (this.rev += 1),
      client_message_id: sender_id === ME ? `key${seq}` : null,
      created_at: now,
      updated_at: now,
      reply_to_id: quoted?.id ?? null,
      reply_to: quoted ? quote(quoted) : null,
    })
    this.messages = [...this.messages, sent]
    this.tell('INSERT', sent)
  }

  private react(of: number, userId: string): void {
    const held = this.messages[of % this.messages.length]
    if (!held || held.is_deleted) return
    const before = held.reactions[0]?.user_ids ?? []
    const isOn = !before.includes(userId)
    const user_ids = isOn ? [...before, userId] : before.filter((id) => id !== userId)
    const reactions =
      user_ids.length === 0
        ? []
        : [{ reaction: '👍', emoji: '👍', count: user_ids.length, me: user_ids.includes(ME), user_ids }]
    const row = isOn
      ? { id: 'r', message_id: held.id, conversation_id: CONVERSATION, user_id: userId, reaction: '👍', emoji: '👍' }
      : { id: 'r' }
    this.facts.push({
      type: 'input',
      input: { type: 'row', table: 'message_reactions', action: isOn ? 'INSERT' : 'DELETE', row },
    })
    this.change(of, (message) => ({ ...message, reactions }))
  }

  /** Changes a message and updates the messages that quote it. */
  private change(of: number, change: (held: wire.Message) => wire.Message): void {
    const held = this.messages[of % this.messages.length]
    if (!held || held.is_deleted) return
    const changed = { ...change(held), rev: (this.rev += 1) }
    const isReworded = changed.content !== held.content
    this.messages = this.messages.map((other) => {
      if (other === held) return changed
      if (!isReworded || other.is_deleted || other.reply_to_id !== held.id) return other
      return { ...other, rev: this.rev, reply_to: quote(changed) }
    })
    for (const other of this.messages) if (other.rev === this.rev) this.tell('UPDATE', other)
  }

  private tell(action: 'INSERT' | 'UPDATE', row: wire.Message): void {
    this.facts.push({ type: 'input', input: { type: 'row', table: 'user_messages', action, row: rowOf(row) } })
    // A response with the current messages may arrive at any later time.
    this.facts.push({ type: 'answer', messages: this.messages })
  }
}

function quote({
  id,
  content,
  created_at,
  file_name,
  is_deleted,
  message_type,
  sender_id,
}: wire.Message): wire.MessagePreview {
  return { id, content, created_at, file_name, is_deleted, message_type, sender_id }
}
