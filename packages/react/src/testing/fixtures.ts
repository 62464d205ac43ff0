/** Users, conversations and messages for component tests and the demonstration page's gallery. */
import type { ChatState, Conversation, Person, Timeline, TimelineMessage } from '@rapport-chat/client'

export const PEOPLE = {
  ana: {
    id: '00000000-0000-4000-8000-00000000000a',
    full_name: 'Ana Admin',
    avatar_url: null,
    email: 'ana@example.com',
    role: 'admin',
    team_id: null,
  },
  ben: {
    id: '00000000-0000-4000-8000-00000000000b',
    full_name: 'Ben Olsen',
    avatar_url: null,
    email: 'ben@example.com',
    role: 'user',
    team_id: null,
  },
  chloe: {
    id: '00000000-0000-4000-8000-00000000000c',
    full_name: 'Chloé Dubois',
    avatar_url: null,
    email: 'chloe@example.com',
    role: 'user',
    team_id: null,
  },
  mona: {
    id: '00000000-0000-4000-8000-00000000000d',
    full_name: 'منى الحسن',
    avatar_url: null,
    email: 'mona@example.com',
    role: 'user',
    team_id: null,
  },
  max: {
    id: '00000000-0000-4000-8000-00000000000e',
    full_name: 'Maximilian Alexander von Württemberg-Hohenzollern',
    avatar_url: null,
    email: 'max@example.com',
    role: 'user',
    team_id: null,
  },
} satisfies Record<string, Person>

let counter = 0

/** Returns the next id. The ids are the same in each run, so that screenshots can be compared. */
function nextId(): string {
  counter++
  return `10000000-0000-4000-8000-${String(counter).padStart(12, '0')}`
}

export function message(
  conversationId: string,
  sender: Person,
  content: string,
  rest: Partial<TimelineMessage> = {},
): TimelineMessage {
  const id = rest.id ?? nextId()
  const at = rest.created_at ?? new Date().toISOString()
  return {
    id,
    key: id,
    conversation_id: conversationId,
    sender_id: sender.id,
    sender: { id: sender.id, full_name: sender.full_name, avatar_url: null, status: 'online' },
    content,
    message_type: 'text',
    client_message_id: null,
    created_at: at,
    updated_at: at,
    edited_at: null,
    deleted_at: null,
    is_edited: false,
    is_deleted: false,
    is_pinned: false,
    delivery_status: 'sent',
    state: 'sent',
    isOwn: sender.id === PEOPLE.ana.id,
    error: null,
    canRetry: false,
    isChanging: false,
    attachments: [],
    mentions: [],
    metadata: {},
    reactions: [],
    read_by: [],
    reply_to: null,
    reply_to_id: null,
    file_name: null,
    file_size: null,
    file_type: null,
    file_url: null,
    rev: 1,
    seq: 1,
    ...rest,
  }
}

export function conversation(other: Person, rest: Partial<Conversation> = {}): Conversation {
  const at = rest.last_message_at ?? new Date().toISOString()
  const participant = (person: Person): NonNullable<Conversation['other_user']> => ({
    id: person.id,
    full_name: person.full_name,
    avatar_url: null,
    email: person.email ?? null,
    last_seen: at,
    status: 'online',
  })
  return {
    id: `20000000-0000-4000-8000-${other.id.slice(-12)}`,
    kind: 'direct',
    title: null,
    can_send: true,
    cleared_seq: 0,
    created_at: at,
    created_by: PEOPLE.ana.id,
    draft: null,
    is_archived: false,
    is_muted: false,
    is_pinned: false,
    last_message: null,
    last_message_at: at,
    last_message_id: null,
    last_read_at: null,
    last_read_message_id: null,
    last_read_seq: 0,
    last_seq: 0,
    marked_unread: false,
    mention_count: 0,
    muted_until: null,
    notification_level: 'all',
    other_user: participant(other),
    participant_1: participant(PEOPLE.ana),
    participant_1_id: PEOPLE.ana.id,
    participant_2: participant(other),
    participant_2_id: other.id,
    peer_last_delivered_message_id: null,
    peer_last_delivered_seq: null,
    peer_last_read_message_id: null,
    peer_last_read_seq: null,
    pinned_at: null,
    rev: 1,
    team_id: null,
    unread_count: 0,
    updated_at: at,
    ...rest,
  }
}

export function timeline(
  conversationId: string,
  messages: readonly TimelineMessage[],
  rest: Partial<Timeline> = {},
): Timeline {
  return {
    conversationId,
    status: 'ready',
    error: null,
    messages,
    hasOlder: false,
    hasNewer: false,
    isLoadingOlder: false,
    isLoadingNewer: false,
    pageError: null,
    firstUnreadSeq: null,
    jump: null,
    ...rest,
  }
}

export function initialState(rest: Partial<ChatState> = {}): ChatState {
  return {
    connection: { status: 'live', since: 0, downSince: null, retryAt: null, error: null },
    me: { ...PEOPLE.ana, teams: [], can_write: true },
    people: Object.fromEntries(Object.values(PEOPLE).map((person) => [person.id, person])),
    conversations: [],
    conversationsStatus: 'ready',
    conversationsError: null,
    timelines: {},
    unread: { total: 0, mentions: 0, byConversation: {} },
    presence: {},
    typing: {},
    preferences: null,
    config: {
      edit_window_s: 0,
      features: { admin_cross_team: true, attachments: false, groups: false },
      max_body_bytes: 65536,
      max_client_message_id_length: 64,
      max_message_length: 4000,
      message_types: ['text'],
      presence_ttl_s: 60,
      typing_expires_in_ms: 6000,
    },
    unsentCount: 0,
    isLeader: true,
    ...rest,
  }
}

export const PREFERENCES = {
  browser_enabled: true,
  digest_hour: 8,
  dnd_until: null,
  email_delay_seconds: 600,
  email_enabled: true,
  email_mode: 'offline' as const,
  quiet_end: '07:00',
  quiet_start: '22:00',
  share_presence: true,
  share_read_receipts: true,
  share_typing: true,
  show_preview: true,
  sound_enabled: true,
  timezone: 'UTC',
  updated_at: '2026-01-01T00:00:00Z',
  user_id: PEOPLE.ana.id,
}
