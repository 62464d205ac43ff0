// The public interface of the client.

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
  /**
   * The base URL of the routes. With the default, `/api/supabase/user-chat`, the page's own origin
   * must forward this path to Rapport.
   */
  baseUrl?: string
  /**
   * The address of the socket, for example `wss://chat.example.com`. A path is necessary only if it
   * is not `/realtime/v1`. Without an address, the client polls.
   */
  socketUrl?: string
  /** The project's public key. The socket requires it. */
  anonKey?: string
  /**
   * Returns the session's access token. `force` means that the server refused the last token, so it
   * must be refreshed. Without this function, the session cookie identifies the user, and the
   * client polls.
   */
  accessToken?: (options?: { force: boolean }) => Promise<string | null>
  /**
   * `shared` (the default): one tab of the browser has the connection. `each`: every tab has its
   * own.
   */
  tabs?: 'shared' | 'each'
  /**
   * The data that is stored in the browser: unsent messages and drafts (`outbox`, the default), the
   * recent conversations as well (`recent`), or nothing (`false`).
   */
  persist?: 'outbox' | 'recent' | false
  /** The data that the server has already rendered into the page. */
  initialState?: InitialState
  /**
   * Receives errors that no method returns, for logs: messages that failed, the end of the session,
   * and failures of `/sync` that a retry cannot resolve.
   */
  onError?: (error: ChatError) => void
  /** Returns the time in milliseconds since 1970. For tests. */
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

/** The client of one user. It does nothing until `start` is called. */
export interface ChatClient {
  readonly userId: string
  /**
   * The routes, for requests that do not change the client's state, such as searches and histories.
   */
  readonly api: UserChatAPI

  /**
   * Connects. Calls are counted: the returned function or `stop` undoes one call, and the client
   * disconnects when all calls are undone. A React effect that runs twice therefore opens only one
   * socket.
   */
  start(): Unsubscribe
  stop(): void
  /**
   * Call it before the user signs out. Disconnects all tabs of the browser, deletes this user's
   * data from memory and storage, and ends the presence of all the user's devices. If
   * `unsentCount` is not 0, ask the user first.
   */
  signOut(): Promise<void>
  /** Sets a token that the application has refreshed. After `signed_out`, this connects again. */
  setToken(token: string | null): void
  /** Tries to connect now instead of at `retryAt`. */
  reconnect(): void

  getState(): ChatState
  /** The state to render on the server and during hydration: only `initialState`. */
  getServerState(): ChatState
  /**
   * Calls the listener after the state has changed. All changes before the next microtask cause one
   * call.
   */
  subscribe(listener: Listener): Unsubscribe
  /** Calls the listener for each event. */
  listen(listener: (event: ChatEvent) => void): Unsubscribe

  /** Returns one conversation. The same id always returns the same object. */
  conversation(conversationId: string): ConversationClient

  /** Returns the conversation with a user, or null if there is none. Never creates one. */
  findConversation(personId: string): Promise<Result<Conversation | null>>
  /** Returns the conversation with a user. Creates it if necessary. */
  openConversation(personId: string): Promise<Result<Conversation>>
  archive(conversationId: string, isArchived: boolean): Promise<Result<null>>
  pin(conversationId: string, isPinned: boolean): Promise<Result<null>>
  /** `until` is an RFC 3339 time. With null, the conversation stays muted until it is unmuted. */
  mute(conversationId: string, isMuted: boolean, until?: string | null): Promise<Result<null>>
  /** Removes the conversation and its history only for this user. */
  clear(conversationId: string): Promise<Result<null>>
  /** Marks all messages of all conversations as read. */
  markAllRead(): Promise<Result<null>>

  /** Finds users that this user may message. With fewer than two characters, finds none. */
  searchUsers(query: string, options?: { signal?: AbortSignal }): Promise<Result<readonly Person[]>>
  /**
   * Loads the presence of these users and keeps it current until the returned function is called.
   */
  watchPresence(personIds: readonly string[]): Unsubscribe
  /** Sets a status for all devices. `online` without `until` removes the status that was set. */
  setStatus(
    status: PresenceStatus,
    options?: { until?: string | null; text?: string | null; emoji?: string | null },
  ): Promise<Result<null>>
  loadPreferences(): Promise<Result<Preferences>>
  setPreferences(change: Partial<Preferences>): Promise<Result<Preferences>>
  block(personId: string): Promise<Result<null>>
  unblock(personId: string): Promise<Result<null>>
}

/** The messages of one conversation, and the user's actions on them. */
export interface ConversationClient {
  readonly id: string
  getTimeline(): Timeline
  subscribe(listener: Listener): Unsubscribe

  /**
   * Displays the conversation: loads the first page and receives typing events. Calls are counted:
   * a returned function undoes its call, and the conversation is closed when all are undone. `at`
   * is the id of the message to start at. By default, the conversation starts at the first unread
   * message or, if there is none, at the end.
   */
  open(options?: { at?: string }): Unsubscribe
  loadOlder(): Promise<void>
  loadNewer(): Promise<void>
  /** Loads the messages around a message, if necessary, and sets `Timeline.jump`. */
  jumpTo(messageId: string): Promise<Result<null>>
  /** Returns to the end of the conversation. */
  jumpToNewest(): Promise<void>

  /**
   * Queues a message and returns its key. The timeline contains the message in the same task, at
   * the end of the conversation, which is displayed from then on.
   */
  send(content: string, options?: SendOptions): string
  /** Sends a failed message again. */
  retry(key: string): void
  /** Removes an unsent message. */
  discard(key: string): void

  /**
   * Edits a message. If its text was changed or the message was deleted in the meantime, returns
   * `stale_revision` and shows the message as it is on the server.
   */
  edit(messageId: string, content: string): Promise<Result<null>>
  /** Deletes the message for everyone or, with `forMe`, hides it only for this user. */
  remove(messageId: string, options?: { forMe?: boolean }): Promise<Result<null>>
  /** Adds or removes the user's reaction. Without `isOn`, toggles it. */
  react(messageId: string, reaction: string, isOn?: boolean): Promise<Result<null>>
  pinMessage(messageId: string, isPinned: boolean): Promise<Result<null>>
  report(messageId: string, reason: ReportReason, note?: string): Promise<Result<null>>
  history(messageId: string): Promise<Result<readonly EarlierWording[]>>

  /**
   * Reports what the list shows: the `seq` of the visible row nearest to the bottom, which is the
   * newest, and whether the list is at the end. Null means that nothing is visible. The client uses
   * this to determine what the user has read.
   */
  setVisible(lowest: { seq: number; isAtEnd: boolean } | null): void
  /** Marks all messages of the conversation as read. */
  markRead(): Promise<Result<null>>
  /**
   * Marks the conversation as unread, from this message on if an id is given. Visible messages then
   * do not count as read until the conversation is closed.
   */
  markUnread(messageId?: string): Promise<Result<null>>

  /** Saves the text in the composer as the draft, and reports typing. */
  setDraft(text: string): void
  getDraft(): string
  /** Ends typing. Call it when the composer loses focus or is closed. */
  stopTyping(): void
}
