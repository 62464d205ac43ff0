// The state that a user interface renders. Snapshots are immutable: a part that did not change is
// the same object as before, so it can be compared by identity.
//
// Rows keep the server's snake case. Fields that the client adds are camel case.

import type * as wire from './wire'

export type { ChatConfig, EarlierWording, MessageHit, Preferences, Reaction } from './wire'

/** An error as a value. It can be serialised and compared; nothing in this package throws it. */
export interface ChatError {
  /** A sentence that can be shown to users. */
  readonly message: string
  /** The code to branch on: one of the server's codes or of the client's own. */
  readonly code: ErrorCode
  /** The HTTP status; 0 if there was no response. */
  readonly status: number
  /** For developers: the field and rule that were violated, or why the server is unreachable. */
  readonly hint: string | null
  /** Seconds to wait before the next attempt. */
  readonly retryAfter: number | null
  /** The request's id in the server's log. */
  readonly requestId: string | null
}

/**
 * `docs/error-codes.md` lists the server's codes. The client's own codes mean that it received no
 * usable response.
 */
export type ErrorCode = wire.Error['code'] | 'network' | 'aborted' | 'unexpected_answer' | 'expired'

/** The outcome of a request. Exactly one of the two fields is set. */
export type Result<T> = { readonly data: T; readonly error: null } | { readonly data: null; readonly error: ChatError }

export type PresenceStatus = wire.Presence['status']

export interface Person {
  readonly id: string
  readonly full_name: string | null
  readonly avatar_url: string | null
  readonly email?: string | null
  readonly role?: wire.Contact['role']
  readonly team_id?: string | null
}

/** The signed-in user. Only `id` is known until the server has responded. */
export interface Me {
  readonly id: string
  readonly full_name: string | null
  readonly avatar_url: string | null
  readonly email: string | null
  readonly role: wire.Contact['role'] | null
  readonly teams: readonly { readonly id: string; readonly name: string | null }[]
  /** False for a suspended user, who can only read. */
  readonly can_write: boolean
}

export interface Presence {
  readonly status: PresenceStatus
  readonly last_seen: string | null
  readonly status_text: string | null
  readonly status_emoji: string | null
  /** The status that the user chose. Only in the user's own presence. */
  readonly manual_status: PresenceStatus | null
  /** When `manual_status` ends; null if it has no end. */
  readonly manual_until: string | null
}

/** The ids of the users who are typing, by conversation. The signed-in user is never included. */
export type Typing = Readonly<Record<string, readonly string[]>>

/** The server's row with the user's pending changes applied, so that they are visible at once. */
export interface Conversation extends wire.Conversation {
  /**
   * An unsent text. While the conversation is displayed, it is the text that the server has saved,
   * which is that of the last pause. `getDraft` returns the text in the composer.
   */
  readonly draft: string | null
}

/**
 * The progress of a message. For messages of other users, it is always `sent`.
 *
 * - `pending`: queued, because the server cannot be reached, the rate limit was reached, or another
 *   message must be sent first
 * - `sending`: in flight
 * - `sent`: stored by the server
 * - `delivered`, `read`: by all other members, as far as they share receipts
 * - `failed`: refused, or not sent within a day; see `error`
 */
export type MessageState = 'pending' | 'sending' | 'sent' | 'delivered' | 'read' | 'failed'

export interface TimelineMessage extends wire.Message {
  /** Identifies the row for React. It stays the same when an unsent message is stored. */
  readonly key: string
  readonly state: MessageState
  readonly isOwn: boolean
  /** Why the message failed. */
  readonly error: ChatError | null
  /** Whether sending the same message again can succeed. */
  readonly canRetry: boolean
  /** Whether a change to this message (edit, deletion, reaction, pin) is still unconfirmed. */
  readonly isChanging: boolean
  /**
   * The position in the conversation, without gaps. `Infinity` until the message is stored. Unsent
   * messages are at the end of the timeline, in the order in which they were written.
   */
  readonly seq: number
  /**
   * The ids of the members, except the sender, who have read the message: the signed-in user, and
   * others as far as they share receipts.
   */
  readonly read_by: string[]
}

/** A request to scroll the list. Each new request has a higher `number`. */
export interface Jump {
  readonly number: number
  readonly target:
    | { readonly at: 'message'; readonly messageId: string; readonly seq: number }
    | { readonly at: 'first_unread'; readonly seq: number }
    | { readonly at: 'newest' }
}

/** A contiguous part of one conversation, oldest message first. */
export interface Timeline {
  readonly conversationId: string
  /** `not_found`: the conversation does not exist, or the user may not see it. */
  readonly status: 'idle' | 'loading' | 'ready' | 'not_found' | 'error'
  /** Why the first page could not be loaded. */
  readonly error: ChatError | null
  /** Includes deleted messages (`is_deleted`). Unsent messages follow if `hasNewer` is false. */
  readonly messages: readonly TimelineMessage[]
  readonly hasOlder: boolean
  readonly hasNewer: boolean
  readonly isLoadingOlder: boolean
  readonly isLoadingNewer: boolean
  /** Why the last attempt to load older or newer messages failed. */
  readonly pageError: ChatError | null
  /**
   * The `seq` of the first message that was unread when the conversation was opened. The line "New
   * messages" is above it and does not move until the conversation is closed.
   */
  readonly firstUnreadSeq: number | null
  /** The last request to scroll. */
  readonly jump: Jump | null
}

/**
 * - `idle`: not started, or stopped
 * - `connecting`, `joining`, `catching_up`: on the way to `live`
 * - `live`: changes arrive over the socket
 * - `polling`: no socket can be opened; changes arrive by long poll, but typing and presence do not
 *   arrive
 * - `reconnecting`: waiting for the next attempt; see `retryAt`
 * - `offline`: the browser has no network
 * - `signed_out`: the token was refused and could not be refreshed, or the session now belongs to
 *   another user
 */
export type ConnectionStatus =
  | 'idle'
  | 'connecting'
  | 'joining'
  | 'catching_up'
  | 'live'
  | 'polling'
  | 'reconnecting'
  | 'offline'
  | 'signed_out'

export interface Connection {
  readonly status: ConnectionStatus
  /** When the status began, in milliseconds since 1970. */
  readonly since: number
  /**
   * When changes stopped arriving, in milliseconds since 1970; null while they arrive. It stays the
   * same across attempts, so that a banner can wait two seconds before it appears.
   */
  readonly downSince: number | null
  /** When the next attempt begins, in milliseconds since 1970. */
  readonly retryAt: number | null
  readonly error: ChatError | null
}

export interface Unread {
  /** Unread messages, without those of muted and archived conversations. */
  readonly total: number
  /** Mentions in these messages. */
  readonly mentions: number
  /** Unread messages by conversation, including muted and archived ones. Contains no zeros. */
  readonly byConversation: Readonly<Record<string, number>>
}

export interface ChatState {
  readonly connection: Connection
  readonly me: Me
  /** All users that are known from conversations, messages and searches. */
  readonly people: Readonly<Record<string, Person>>
  /** All conversations, including archived ones: pinned ones first, then by last message. */
  readonly conversations: readonly Conversation[]
  /** `ready` once the whole list is loaded. */
  readonly conversationsStatus: 'loading' | 'ready' | 'error'
  readonly conversationsError: ChatError | null
  readonly timelines: Readonly<Record<string, Timeline>>
  readonly unread: Unread
  readonly presence: Readonly<Record<string, Presence>>
  readonly typing: Typing
  /** Null until loaded. */
  readonly preferences: wire.Preferences | null
  /** Null until loaded. */
  readonly config: wire.ChatConfig | null
  /** The number of unsent messages, including failed ones. Signing out deletes them. */
  readonly unsentCount: number
  /** Whether this tab has the connection. If not, it must not play sounds or show notifications. */
  readonly isLeader: boolean
}

/** Something that happened once, for toasts, announcements, sounds and notifications. */
export type ChatEvent =
  /** A message of another user arrived live. Messages from a catch-up are not reported. */
  | { readonly type: 'message_received'; readonly message: TimelineMessage; readonly conversation: Conversation | null }
  | { readonly type: 'message_sent'; readonly message: TimelineMessage }
  | { readonly type: 'message_failed'; readonly message: TimelineMessage; readonly error: ChatError }
  /** The request for a change failed. If the change was already shown, it was rolled back. */
  | {
      readonly type: 'change_failed'
      readonly change: ChangeKind
      readonly messageId: string | null
      readonly conversationId: string | null
      readonly error: ChatError
    }
  /** A jump led to a message that does not exist, or that the user may not see. */
  | { readonly type: 'message_unavailable'; readonly conversationId: string; readonly messageId: string }
  /**
   * The session has ended: the token was refused and could not be refreshed, the session now
   * belongs to another user, or the user signed out in another tab. Drafts and unsent messages are
   * deleted only in the last case.
   */
  | { readonly type: 'signed_out' }
  /** The user signed out, in this tab or another one, and all data of this user was deleted. */
  | { readonly type: 'forgotten' }

export type ChangeKind =
  | 'edit'
  | 'delete'
  | 'hide'
  | 'react'
  | 'pin_message'
  | 'pin'
  | 'archive'
  | 'mute'
  | 'mark_unread'
  | 'clear'
  | 'preferences'
  | 'presence'

/** Data that a server can render into the page, so that the client need not load it again. */
export interface InitialState {
  readonly me?: Me
  readonly conversations?: readonly wire.Conversation[]
  readonly receipts?: readonly wire.Receipt[]
  /** The `/sync` cursor of the conversations. Without it, they are loaded again. */
  readonly cursor?: string
  readonly unread?: Unread
  readonly preferences?: wire.Preferences
  readonly config?: wire.ChatConfig
  /** The first pages of one or more conversations. */
  readonly pages?: readonly InitialPage[]
}

export interface InitialPage {
  readonly conversationId: string
  readonly messages: readonly wire.Message[]
  readonly hasOlder: boolean
  readonly hasNewer: boolean
  /** What the page surrounds: a message's id or `first_unread`. Not set if the page is the end. */
  readonly around?: string
}
