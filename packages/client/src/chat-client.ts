// The public surface of the client.

import type { ReportReason, UserChatAPI } from './api'
import type {
  ChatError,
  ChatEvent,
  ChatState,
  Conversation,
  EarlierWording,
  InitialState,
  Person,
  PresenceStatus,
  Preferences,
  Result,
  Timeline,
} from './types'

export interface ChatClientOptions {
  /** The signed-in user's id. */
  userId: string
  /** The base URL of the routes. The default, `/api/supabase/user-chat`, fits a page behind a rewrite. */
  baseUrl?: string
  /**
   * The address of the socket, as in `wss://chat.example.com`, or with a path if it is not
   * `/realtime/v1`. Without an address the client polls.
   */
  socketUrl?: string
  /** The project's public key. The socket requires it. */
  anonKey?: string
  /**
   * Returns the session's access token. `force`: the last one was refused, so refresh it. Without
   * this function the session cookie identifies the user, and the client polls.
   */
  accessToken?: (options?: { force: boolean }) => Promise<string | null>
  /** `shared` (the default): one tab of the browser has the connection. `each`: every tab has one. */
  tabs?: 'shared' | 'each'
  /**
   * What is kept in the browser: unsent messages and drafts (`outbox`, the default), also the recent
   * conversations (`recent`), or nothing.
   */
  persist?: 'outbox' | 'recent' | false
  /** What the server has rendered into the page already. */
  initialState?: InitialState
  /** Receives every error that no caller receives, for logs. */
  onError?: (error: ChatError) => void
  /** Milliseconds since 1970. For tests. */
  now?: () => number
  fetch?: typeof fetch
}

export interface SendOptions {
  replyToId?: string
  metadata?: Record<string, unknown>
  messageType?: 'text' | 'image' | 'file'
  file?: { url: string; name: string; size: number; type: string }
}

export type Listener = () => void
export type Unsubscribe = () => void

/** Creates the client of one user. It does nothing until `start` is called. */
export interface ChatClient {
  readonly userId: string
  /** The routes, for requests that change no state here: searches, histories, blocks. */
  readonly api: UserChatAPI

  /**
   * Connects. Calls are counted: the returned function (or `stop`) undoes one call, and the last one
   * disconnects. Effects that run twice therefore open one socket.
   */
  start(): Unsubscribe
  stop(): void
  /**
   * Ends the session on this device: disconnects all tabs, deletes everything that they hold or store
   * of this user, and reports the user as offline. Ask first if `unsentCount` is not 0.
   */
  signOut(): Promise<void>
  /** Passes on a token that the host has refreshed. Also continues after `signed_out`. */
  setToken(token: string | null): void
  /** Tries to connect now instead of at `retryAt`. */
  reconnect(): void

  getState(): ChatState
  /** The state to render on the server and during hydration: only `initialState`. */
  getServerState(): ChatState
  /** Calls the listener after each change of the state, at most once per task. */
  subscribe(listener: Listener): Unsubscribe
  /** Calls the listener for each event. */
  listen(listener: (event: ChatEvent) => void): Unsubscribe

  /** One conversation. The same id always yields the same object. */
  conversation(conversationId: string): ConversationClient

  /** The conversation with a user, if there is one. Never creates one. */
  findConversation(personId: string): Promise<Result<Conversation | null>>
  /** Opens the conversation with a user, and creates it if necessary. */
  openConversation(personId: string): Promise<Result<Conversation>>
  archive(conversationId: string, isArchived: boolean): Promise<Result<null>>
  pin(conversationId: string, isPinned: boolean): Promise<Result<null>>
  /** `until` is an RFC 3339 time; null mutes until it is undone. */
  mute(conversationId: string, isMuted: boolean, until?: string | null): Promise<Result<null>>
  /** Removes the conversation and its history only for this user. */
  clear(conversationId: string): Promise<Result<null>>
  /** Marks all messages of all conversations as read. */
  markAllRead(): Promise<Result<null>>

  /** Users the caller may message. Fewer than two characters find none. */
  searchUsers(query: string, options?: { signal?: AbortSignal }): Promise<Result<readonly Person[]>>
  /** Loads the presence of these users and keeps it current. The returned function ends that. */
  watchPresence(personIds: readonly string[]): Unsubscribe
  /** Chooses a status for all devices. `online` without `until` ends the choice. */
  setStatus(
    status: PresenceStatus,
    options?: { until?: string | null; text?: string | null; emoji?: string | null },
  ): Promise<Result<null>>
  loadPreferences(): Promise<Result<Preferences>>
  setPreferences(change: Partial<Preferences>): Promise<Result<Preferences>>
  block(personId: string): Promise<Result<null>>
  unblock(personId: string): Promise<Result<null>>
}

/** The messages of one conversation, and what the user does with them. */
export interface ConversationClient {
  readonly id: string
  getTimeline(): Timeline
  subscribe(listener: Listener): Unsubscribe

  /**
   * Displays the conversation: loads the first page and receives typing events. Calls are counted;
   * the last returned function closes it. `at`: a message's id; by default the first unread message
   * if there is one, otherwise the end.
   */
  open(options?: { at?: string }): Unsubscribe
  loadOlder(): Promise<void>
  loadNewer(): Promise<void>
  /** Loads what surrounds a message and sets `Timeline.jump`. */
  jumpTo(messageId: string): Promise<Result<null>>
  /** Returns to the end of the conversation. */
  jumpToNewest(): Promise<void>

  /**
   * Queues a message and returns its key. The timeline contains it in the same task, at the end of the
   * conversation, which is displayed from then on.
   */
  send(content: string, options?: SendOptions): string
  /** Sends a failed message again. */
  retry(key: string): void
  /** Removes a message that is not sent. */
  discard(key: string): void

  /** A change that was made meanwhile yields `stale_revision`; the timeline then shows it. */
  edit(messageId: string, content: string): Promise<Result<null>>
  /** `forMe` hides the message only for this user. */
  remove(messageId: string, options?: { forMe?: boolean }): Promise<Result<null>>
  /** Adds or removes the user's reaction. Without `isOn` it is toggled. */
  react(messageId: string, reaction: string, isOn?: boolean): Promise<Result<null>>
  pinMessage(messageId: string, isPinned: boolean): Promise<Result<null>>
  report(messageId: string, reason: ReportReason, note?: string): Promise<Result<null>>
  history(messageId: string): Promise<Result<readonly EarlierWording[]>>

  /**
   * Reports what the list shows: the `seq` of the lowest visible row, and whether the list is at the
   * end. Null: nothing is visible. The client decides from that what has been read.
   */
  setVisible(lowest: { seq: number; isAtEnd: boolean } | null): void
  /** Marks everything as read. */
  markRead(): Promise<Result<null>>
  /** Marks the conversation as unread, from this message on. It stays unread until it is left. */
  markUnread(messageId?: string): Promise<Result<null>>

  /** Reports the text in the composer: reports typing and saves the draft. */
  setDraft(text: string): void
  getDraft(): string
  /** The composer lost focus or was closed. */
  stopTyping(): void
}
