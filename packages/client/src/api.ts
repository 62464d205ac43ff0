// The chat routes as methods of a class. Like those of supabase-js, they return `{ data, error }`.
// They never throw.

import { randomId } from './ids'
import { Requests, type RequestOptions } from './requests'
import { Token, type AccessToken } from './token'
import type { Me, Person, PresenceStatus, Result } from './types'
import type * as wire from './wire'

export type { RequestOptions } from './requests'

export interface UserChatAPIOptions {
  /** Every request names this user. The server refuses it if the session is another user's. */
  userId?: string
  /**
   * The base URL of the routes. With the default, `/api/supabase/user-chat`, the page's own origin
   * must forward this path to Rapport.
   */
  baseUrl?: string
  /** Returns the session's access token. If omitted, the session cookie identifies the caller. */
  accessToken?: AccessToken
  fetch?: typeof fetch
}

/** A page of a list. Cursors are opaque. */
export interface Page<T> {
  data: T[]
  next_cursor: string | null
  prev_cursor: string | null
  has_more: boolean
}

/**
 * A request for a page of messages, with at most one of `before`, `after` and `around`: a message's
 * id or `seq`, or `first_unread`. With none, the newest page is returned.
 */
export interface PageRequest extends RequestOptions {
  conversationId: string
  before?: string | number
  after?: string | number
  around?: string | number
  limit?: number
}

export interface NewMessage {
  conversationId?: string
  /** The recipient, instead of `conversationId`. The conversation is created if necessary. */
  otherUserId?: string
  content: string
  messageType?: 'text' | 'image' | 'file'
  /** A retry with the same id never sends the message twice. */
  clientMessageId: string
  replyToId?: string | null
  metadata?: Record<string, unknown>
  file?: { url: string; name: string; size: number; type: string } | null
}

export interface ConversationSettings {
  isArchived?: boolean
  isPinned?: boolean
  isMuted?: boolean
  mutedUntil?: string | null
  notificationLevel?: wire.Conversation['notification_level']
  draft?: string | null
}

export interface PresenceReport {
  status?: PresenceStatus
  /** Identifies a tab or device. If set, `offline` ends only its presence. */
  sessionId?: string
  /**
   * Makes `status` one that the user chose, until this RFC 3339 time or, with null, without an end.
   * `online` with null ends the choice.
   */
  manualUntil?: string | null
  statusText?: string | null
  statusEmoji?: string | null
  currentPage?: string
}

export interface MessageSearch extends RequestOptions {
  in?: string
  from?: string
  after?: string
  before?: string
  has?: string
  sort?: 'date' | 'relevance'
  cursor?: string
  limit?: number
}

export type ReportReason = 'spam' | 'harassment' | 'hate' | 'violence' | 'sexual' | 'illegal' | 'other'

export class UserChatAPI {
  readonly #requests: Requests

  constructor(options: UserChatAPIOptions | Requests = {}) {
    this.#requests =
      options instanceof Requests ? options : new Requests({ ...options, token: new Token(options.accessToken) })
  }

  // Methods with the names and parameters that existing dashboards use. As the caller's id, the
  // server accepts only the id of the session's user.

  /**
   * Returns the first 100 of the caller's unarchived conversations: pinned ones first, then by last
   * message.
   */
  getConversations(userId: string, options?: RequestOptions): Promise<Result<wire.Conversation[]>> {
    return this.#get('/conversations', { current_user_id: userId, limit: 100 }, options)
  }

  /**
   * Returns the conversation of two users, one of whom must be the caller. Creates it if necessary.
   */
  getOrCreateConversation(
    user1Id: string,
    user2Id: string,
    options?: RequestOptions,
  ): Promise<Result<wire.OpenedConversation>> {
    return this.#post('/conversations', { user1_id: user1Id, user2_id: user2Id }, options)
  }

  /** Returns messages, oldest first, without deleted ones. `offset` counts back from the newest. */
  getMessages(
    conversationId: string,
    limit = 50,
    offset = 0,
    options?: RequestOptions,
  ): Promise<Result<wire.Message[]>> {
    return this.#get('/messages', { conversationId, limit, offset }, options)
  }

  /** A retry with the same `clientMessageId` returns the same message and never sends it twice. */
  sendMessage(
    conversationId: string,
    senderId: string,
    content: string,
    messageType: 'text' | 'image' | 'file' = 'text',
    clientMessageId: string = randomId(),
    options?: RequestOptions,
  ): Promise<Result<wire.Message>> {
    return this.#post('/messages', onWire({ conversationId, senderId, content, messageType, clientMessageId }), options)
  }

  /** In each conversation of these messages, marks everything up to the newest of them as read. */
  markAsRead(messageIds: string[], userId: string, options?: RequestOptions): Promise<Result<wire.ReadResult>> {
    return this.#requests.send('PUT', '/messages', { body: { message_ids: messageIds, user_id: userId }, ...options })
  }

  /**
   * Reports that the caller is typing to another user. Call it every three seconds while the caller
   * types. `null` ends typing.
   */
  updateTypingStatus(userId: string, typingToUserId: string | null, options?: RequestOptions): Promise<Result<null>> {
    return this.#requests.send('PUT', '/presence/typing', {
      body: { user_id: userId, typing_to_user_id: typingToUserId },
      ...options,
    })
  }

  /**
   * Reports presence. A report is valid for the `presence_ttl_s` seconds that `getConfig` returns.
   */
  updatePresence(
    userId: string,
    status: PresenceStatus,
    currentPage?: string,
    options?: RequestOptions,
  ): Promise<Result<wire.Presence>> {
    return this.#requests.send('PUT', '/presence', {
      body: { user_id: userId, status, current_page: currentPage },
      ...options,
    })
  }

  /**
   * Finds up to ten users that the caller may message. With fewer than two characters, finds none.
   */
  searchUsers(
    query: string,
    currentUserId: string,
    teamId?: string | null,
    options?: RequestOptions,
  ): Promise<Result<wire.FoundPerson[]>> {
    return this.#get('/search', { q: query, type: 'users', current_user_id: currentUserId, teamId }, options)
  }

  // Messages

  /** Returns a page of messages, oldest first, including deleted ones. */
  getPage({ conversationId, before, after, around, limit, signal }: PageRequest): Promise<Result<Page<wire.Message>>> {
    return this.#get(
      '/messages',
      { conversation_id: conversationId, before, after, around, limit, include_deleted: true, format: 'page' },
      { signal },
    )
  }

  getMessage(messageId: string, options?: RequestOptions): Promise<Result<wire.Message>> {
    return this.#get(`/messages/${messageId}`, {}, options)
  }

  postMessage({ file, ...message }: NewMessage, options?: RequestOptions): Promise<Result<wire.Message>> {
    const body = {
      ...onWire(message),
      ...(file && { file_url: file.url, file_name: file.name, file_size: file.size, file_type: file.type }),
    }
    return this.#post('/messages', body, options)
  }

  /** With `rev`, the edit is refused with `stale_revision` if the message has a newer revision. */
  editMessage(
    messageId: string,
    content: string,
    { rev, ...options }: RequestOptions & { rev?: number } = {},
  ): Promise<Result<wire.Message>> {
    const headers: Record<string, string> = rev === undefined ? {} : { 'if-match': `"m${rev}"` }
    return this.#requests.send('PATCH', `/messages/${messageId}`, { body: { content }, headers, ...options })
  }

  /** Deletes the message for everyone or, with `forMe`, hides it only for the caller. */
  deleteMessage(
    messageId: string,
    { forMe, ...options }: RequestOptions & { forMe?: boolean } = {},
  ): Promise<Result<wire.Confirmation>> {
    return this.#requests.send('DELETE', `/messages/${messageId}`, {
      query: { for: forMe ? 'me' : undefined },
      ...options,
    })
  }

  addReaction(messageId: string, reaction: string, options?: RequestOptions): Promise<Result<wire.Reaction[]>> {
    return this.#requests.send('PUT', `/messages/${messageId}/reactions/${encodeURIComponent(reaction)}`, options)
  }

  removeReaction(messageId: string, reaction: string, options?: RequestOptions): Promise<Result<wire.Reaction[]>> {
    return this.#requests.send('DELETE', `/messages/${messageId}/reactions/${encodeURIComponent(reaction)}`, options)
  }

  /** Pins or unpins the message for everyone in the conversation. */
  pin(messageId: string, isPinned = true, options?: RequestOptions): Promise<Result<null>> {
    return this.#requests.send(isPinned ? 'PUT' : 'DELETE', `/messages/${messageId}/pin`, options)
  }

  getPins(conversationId: string, options?: RequestOptions): Promise<Result<wire.Message[]>> {
    return this.#get(`/conversations/${conversationId}/pins`, {}, options)
  }

  report(messageId: string, reason: ReportReason, note?: string, options?: RequestOptions): Promise<Result<unknown>> {
    return this.#post(`/messages/${messageId}/report`, { reason, note }, options)
  }

  /** Returns the earlier versions of a message. */
  getHistory(messageId: string, options?: RequestOptions): Promise<Result<wire.EarlierWording[]>> {
    return this.#get(`/messages/${messageId}/history`, {}, options)
  }

  // Conversations

  getConversation(conversationId: string, options?: RequestOptions): Promise<Result<wire.Conversation>> {
    return this.#get(`/conversations/${conversationId}`, {}, options)
  }

  /**
   * Returns the conversation with a user. If there is none, creates it or, with `preventCreation`,
   * returns an error with status 404.
   */
  openConversation(
    otherUserId: string,
    { preventCreation, ...options }: RequestOptions & { preventCreation?: boolean } = {},
  ): Promise<Result<wire.OpenedConversation>> {
    return this.#post('/conversations', { other_user_id: otherUserId, prevent_creation: preventCreation }, options)
  }

  updateConversation(
    conversationId: string,
    settings: ConversationSettings,
    options?: RequestOptions,
  ): Promise<Result<wire.Conversation>> {
    return this.#requests.send('PATCH', `/conversations/${conversationId}`, { body: onWire(settings), ...options })
  }

  /** Removes the conversation and its history only for the caller. */
  clearConversation(conversationId: string, options?: RequestOptions): Promise<Result<wire.Confirmation>> {
    return this.#requests.send('DELETE', `/conversations/${conversationId}`, options)
  }

  /** Marks the messages up to this one as read or, without an id, all messages. */
  markConversationRead(
    conversationId: string,
    messageId?: string,
    options?: RequestOptions,
  ): Promise<Result<wire.ReadResult>> {
    return this.#post(`/conversations/${conversationId}/read`, { message_id: messageId }, options)
  }

  /**
   * Marks the messages from this one on as unread or, without an id, the conversation as a whole.
   */
  markConversationUnread(
    conversationId: string,
    messageId?: string,
    options?: RequestOptions,
  ): Promise<Result<wire.Conversation>> {
    return this.#post(`/conversations/${conversationId}/unread`, { message_id: messageId }, options)
  }

  setTyping(conversationId: string, isTyping: boolean, options?: RequestOptions): Promise<Result<null>> {
    return this.#post(`/conversations/${conversationId}/typing`, { is_typing: isTyping }, options)
  }

  getMembers(conversationId: string, options?: RequestOptions): Promise<Result<wire.Member[]>> {
    return this.#get(`/conversations/${conversationId}/members`, {}, options)
  }

  // Searching

  /** Searches messages by words and operators such as `from:` (docs/api.md). */
  search(query: string, { signal, ...filters }: MessageSearch = {}): Promise<Result<Page<wire.MessageHit>>> {
    return this.#get('/search', { q: query, type: 'messages', format: 'page', ...filters }, { signal })
  }

  /** Searches users, conversations and messages. Returns the first page of messages. */
  searchAll(query: string, options?: RequestOptions): Promise<Result<wire.FoundOfAll>> {
    return this.#get('/search', { q: query, type: 'all' }, options)
  }

  /**
   * Returns the users that the caller has conversations with, then other members of the caller's
   * teams.
   */
  getContacts({ cursor, limit, signal }: RequestOptions & { cursor?: string; limit?: number } = {}): Promise<
    Result<Page<wire.Contact>>
  > {
    return this.#get('/contacts', { cursor, limit, format: 'page' }, { signal })
  }

  // The caller

  /** Returns the signed-in user. Older servers lack this route and return 404. */
  getMe(options?: RequestOptions): Promise<Result<Partial<Me> & Person>> {
    return this.#get('/me', {}, options)
  }

  /**
   * Returns the counts for a badge. The totals exclude muted and archived conversations;
   * `by_conversation` includes them.
   */
  getUnreadCount(options?: RequestOptions): Promise<Result<wire.UnreadCounts>> {
    return this.#get('/unread-count', {}, options)
  }

  getPreferences(options?: RequestOptions): Promise<Result<wire.Preferences>> {
    return this.#get('/preferences', {}, options)
  }

  setPreferences(change: Partial<wire.Preferences>, options?: RequestOptions): Promise<Result<wire.Preferences>> {
    return this.#requests.send('PATCH', '/preferences', { body: change, ...options })
  }

  /** Returns the presence of these users or, without ids, of the caller. */
  getPresence(userIds?: readonly string[], options?: RequestOptions): Promise<Result<wire.Presence[]>> {
    return this.#get('/presence', { user_ids: userIds?.join(',') }, options)
  }

  setPresence(
    report: PresenceReport,
    options?: RequestOptions & { keepalive?: boolean },
  ): Promise<Result<wire.Presence>> {
    return this.#requests.send('POST', '/presence', { body: onWire(report), ...options })
  }

  /** Ends the presence of one device or, without a session id, of all devices. */
  endPresence(sessionId?: string, options?: RequestOptions & { keepalive?: boolean }): Promise<Result<null>> {
    return this.#requests.send('DELETE', '/presence', { body: { session_id: sessionId }, ...options })
  }

  getBlocks(options?: RequestOptions): Promise<Result<wire.Block[]>> {
    return this.#get('/blocks', {}, options)
  }

  block(userId: string, options?: RequestOptions): Promise<Result<wire.Block>> {
    return this.#post('/blocks', { user_id: userId }, options)
  }

  unblock(userId: string, options?: RequestOptions): Promise<Result<wire.Confirmation>> {
    return this.#requests.send('DELETE', `/blocks/${userId}`, options)
  }

  /** Returns the limits and features of the server. Requires no token. */
  getConfig(options?: RequestOptions): Promise<Result<wire.ChatConfig>> {
    return this.#get('/config', {}, options)
  }

  /** Returns a page of changes since a cursor or, without a cursor, the list of conversations. */
  sync(
    since?: string,
    { wait, limit, ...options }: RequestOptions & { wait?: number; limit?: number } = {},
  ): Promise<Result<wire.SyncPage>> {
    return this.#get('/sync', { since, wait, limit }, options)
  }

  #get<T>(
    path: string,
    query: Record<string, string | number | boolean | null | undefined>,
    options?: RequestOptions,
  ): Promise<Result<T>> {
    return this.#requests.send('GET', path, { query, ...options })
  }

  #post<T>(path: string, body: object, options?: RequestOptions): Promise<Result<T>> {
    return this.#requests.send('POST', path, { body, ...options })
  }
}

/** Renames the fields as the routes expect them: `replyToId` becomes `reply_to_id`. */
function onWire(values: object): object {
  const rename = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [rename(name), value]))
}
