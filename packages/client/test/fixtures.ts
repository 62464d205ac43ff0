// Rows as the server returns them.

import type * as wire from '../src/wire'

export const ME = 'me'
export const PEER = 'peer'
export const CONVERSATION = 'conversation'

const TIME = '2026-01-01T00:00:00+00:00'

export function person(id: string): wire.Participant {
  return { id, full_name: `Name of ${id}`, avatar_url: null, email: null, status: 'offline', last_seen: null }
}

export function message(part: Partial<wire.Message> & { seq: number }): wire.Message {
  const id = part.id ?? `m${part.seq}`
  const sender_id = part.sender_id === undefined ? PEER : part.sender_id
  return {
    id,
    conversation_id: CONVERSATION,
    sender_id,
    sender: sender_id === null ? null : { id: sender_id, full_name: `Name of ${sender_id}`, avatar_url: null },
    content: `text ${id}`,
    message_type: 'text',
    file_url: null,
    file_name: null,
    file_size: null,
    file_type: null,
    created_at: TIME,
    updated_at: TIME,
    edited_at: null,
    deleted_at: null,
    is_edited: false,
    is_deleted: false,
    is_pinned: false,
    metadata: {},
    mentions: [],
    reactions: [],
    attachments: [],
    reply_to_id: null,
    reply_to: null,
    read_by: [],
    delivery_status: 'sent',
    client_message_id: null,
    rev: part.seq,
    ...part,
  }
}

export function conversation(part: Partial<wire.Conversation> = {}): wire.Conversation {
  return {
    id: CONVERSATION,
    kind: 'direct',
    title: null,
    team_id: null,
    created_at: TIME,
    created_by: ME,
    updated_at: TIME,
    participant_1: person(ME),
    participant_1_id: ME,
    participant_2: person(PEER),
    participant_2_id: PEER,
    other_user: person(PEER),
    can_send: true,
    cleared_seq: 0,
    draft: null,
    is_archived: false,
    is_muted: false,
    is_pinned: false,
    pinned_at: null,
    muted_until: null,
    notification_level: 'all',
    marked_unread: false,
    unread_count: 0,
    mention_count: 0,
    last_message: null,
    last_message_at: null,
    last_message_id: null,
    last_read_at: null,
    last_read_message_id: null,
    last_read_seq: 0,
    last_seq: 0,
    peer_last_delivered_message_id: null,
    peer_last_delivered_seq: null,
    peer_last_read_message_id: null,
    peer_last_read_seq: null,
    rev: 0,
    ...part,
  }
}

export function receipt(user_id: string, last_read_seq: number, last_delivered_seq = last_read_seq): wire.Receipt {
  return {
    conversation_id: CONVERSATION,
    user_id,
    last_read_seq,
    last_delivered_seq,
    last_read_at: null,
    last_read_message_id: null,
    last_delivered_at: null,
    last_delivered_message_id: null,
  }
}

export function syncPage(part: Partial<wire.SyncPage> = {}): wire.SyncPage {
  return {
    conversations: [],
    receipts: [],
    removed_conversation_ids: [],
    removed_message_ids: [],
    messages: [],
    cursor: 'c1',
    has_more: false,
    ...part,
  }
}

/** Returns a message as a row from the socket, which has only the table's columns. */
export function rowOf(row: wire.Message): Record<string, unknown> {
  const {
    sender: _1,
    reactions: _2,
    reply_to: _3,
    is_pinned: _4,
    attachments: _5,
    delivery_status: _6,
    ...columns
  } = row
  return { ...columns, read_by: [], deleted_by: null, changed_xid: '1' }
}
