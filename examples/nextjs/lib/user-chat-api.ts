// The chat routes as a class that returns `{ data, error }`, like supabase-js. It never throws.

export interface Person {
  id: string
  full_name: string | null
  email?: string | null
  avatar_url: string | null
  status?: PresenceStatus
  team_id?: string | null
}

export interface Message {
  id: string
  conversation_id: string
  sender_id: string | null
  content: string
  message_type: 'text' | 'image' | 'file' | 'system'
  created_at: string
  updated_at: string
  is_edited: boolean
  is_deleted: boolean
  /** The users other than the sender who have read the message, for the second tick. */
  read_by: string[]
  client_message_id: string | null
  /** The position in the conversation: 1, 2, 3, … without gaps. */
  seq: number
  rev: number
  sender?: Person | null
  reactions?: { reaction: string; count: number; me: boolean; user_ids: string[] }[]
  delivery_status?: 'sent' | 'delivered' | 'read'
}

export interface Conversation {
  id: string
  participant_1_id: string | null
  participant_2_id: string | null
  participant_1: Person | null
  participant_2: Person | null
  other_user: (Person & { last_seen?: string | null }) | null
  last_message: Pick<Message, 'id' | 'content' | 'message_type' | 'sender_id' | 'created_at' | 'is_deleted'> | null
  last_message_at: string | null
  updated_at: string
  unread_count: number
  is_archived: boolean
  is_pinned: boolean
  can_send: boolean
}

export type PresenceStatus = 'online' | 'away' | 'busy' | 'offline'

export interface Presence {
  user_id: string
  status: PresenceStatus
  last_seen: string | null
  current_page: string | null
}

export interface Sync {
  conversations: (Conversation & { cleared_seq: number })[]
  receipts: { conversation_id: string; user_id: string; last_read_seq: number }[]
  removed_conversation_ids: string[]
  removed_message_ids: string[]
  messages: Message[]
  cursor: string
  has_more: boolean
}

/** A failed request: a text to show, a code to branch on, and the HTTP status (0: no response). */
export class ChatError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
    readonly hint: string | null = null,
    readonly retryAfter: number | null = null,
  ) {
    super(message)
    this.name = 'ChatError'
  }
}

export type Result<T> = Promise<{ data: T; error: null } | { data: null; error: ChatError }>

export interface UserChatOptions {
  /** The base URL of the routes. The default requires the rewrites in `next.config.mjs`. */
  baseUrl?: string
  /**
   * Returns the session's access token. If omitted, the browser's session cookie identifies the
   * caller.
   */
  accessToken?: () => Promise<string | null | undefined>
  fetch?: typeof fetch
}

export class UserChatAPI {
  constructor(private readonly options: UserChatOptions = {}) {}

  /**
   * Returns the first 100 of the caller's unarchived conversations: pinned ones first, then by most
   * recent activity.
   */
  getConversations(userId: string): Result<Conversation[]> {
    return this.request('GET', '/conversations', { query: { currentUserId: userId, limit: 100 } })
  }

  /** Returns the conversation of two users, one of whom must be the caller. */
  getOrCreateConversation(user1Id: string, user2Id: string): Result<Conversation & { created: boolean }> {
    return this.request('POST', '/conversations', { body: { user1_id: user1Id, user2_id: user2Id } })
  }

  /** Returns messages, oldest first, without deleted ones. `offset` counts back from the newest. */
  getMessages(conversationId: string, limit = 50, offset = 0): Result<Message[]> {
    return this.request('GET', '/messages', { query: { conversationId, limit, offset } })
  }

  /** A retry with the same `clientMessageId` returns the same message and never sends it twice. */
  sendMessage(
    conversationId: string,
    senderId: string,
    content: string,
    messageType: Message['message_type'] = 'text',
    clientMessageId: string = crypto.randomUUID(),
  ): Result<Message> {
    return this.request('POST', '/messages', {
      body: {
        conversation_id: conversationId,
        sender_id: senderId,
        content,
        message_type: messageType,
        client_message_id: clientMessageId,
      },
    })
  }

  /** In each conversation of these messages, marks everything up to the newest of them as read. */
  markAsRead(messageIds: string[], userId: string): Result<{ success: true; updated: number; unread_count: number }> {
    return this.request('PUT', '/messages', { body: { message_ids: messageIds, user_id: userId } })
  }

  /** Reports typing. Call it every three seconds while the user types; `null` ends typing. */
  updateTypingStatus(userId: string, typingToUserId: string | null): Result<null> {
    return this.request('PUT', '/presence/typing', { body: { user_id: userId, typing_to_user_id: typingToUserId } })
  }

  /** Reports presence. Call it every 30 seconds, because a report is valid for one minute. */
  updatePresence(userId: string, status: PresenceStatus, currentPage?: string): Result<Presence> {
    return this.request('PUT', '/presence', { body: { user_id: userId, status, current_page: currentPage } })
  }

  /**
   * Finds up to ten users that the caller may message. With fewer than two characters, finds none.
   */
  searchUsers(query: string, currentUserId: string, teamId?: string | null): Result<Person[]> {
    return this.request('GET', '/search', { query: { q: query, type: 'users', currentUserId, teamId } })
  }

  /** Returns the counts for a badge. The total excludes muted and archived conversations. */
  getUnreadCount(): Result<{ total: number; by_conversation: Record<string, number> }> {
    return this.request('GET', '/unread-count', {})
  }

  /**
   * Returns a page of changes since a cursor. Without a cursor, it returns the list of
   * conversations and a first cursor.
   */
  sync(since?: string): Result<Sync> {
    return this.request('GET', '/sync', { query: { since } })
  }

  private async request<T>(
    method: string,
    path: string,
    { query = {}, body }: { query?: Record<string, string | number | null | undefined>; body?: object },
  ): Result<T> {
    try {
      const parameters = Object.entries(query).flatMap(([name, value]) => (value == null ? [] : [[name, String(value)]]))
      const search = parameters.length > 0 ? `?${new URLSearchParams(parameters)}` : ''
      const token = await this.options.accessToken?.()
      const send = this.options.fetch ?? fetch
      const response = await send((this.options.baseUrl ?? '/api/supabase/user-chat') + path + search, {
        method,
        headers: {
          ...(token ? { authorization: `Bearer ${token}` } : {}),
          ...(body ? { 'content-type': 'application/json' } : {}),
        },
        body: body && JSON.stringify(body),
      })
      const text = await response.text()
      if (response.ok) return { data: (text ? JSON.parse(text) : null) as T, error: null }
      return { data: null, error: refusal(response, text) }
    } catch (cause) {
      return { data: null, error: new ChatError(String(cause), 'network', 0) }
    }
  }
}

/** Returns the error of a response. A response from a proxy in front of Rapport may not be JSON. */
function refusal(response: Response, text: string): ChatError {
  try {
    const { error, code, hint, retry_after } = JSON.parse(text)
    return new ChatError(error, code, response.status, hint, retry_after)
  } catch {
    return new ChatError(response.statusText || `HTTP ${response.status}`, 'unexpected_answer', response.status)
  }
}
