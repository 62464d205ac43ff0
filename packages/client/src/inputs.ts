// The inputs that change the state from outside. The tab that has the connection applies them and
// passes them to the other tabs, so they are plain data.

import type { Connection, Presence } from './types'
import type * as wire from './wire'

export type Input =
  /**
   * A page of `/sync`. `isFirstLoad`: the page is part of loading everything. `isLive`: the page is
   * the response to a long poll, so its new messages are reported as events.
   */
  | { type: 'synced'; page: wire.SyncPage; isFirstLoad: boolean; isLive: boolean }
  /** The cursor is no longer valid, so everything is loaded again. */
  | { type: 'forget' }
  /** A row change from the socket. A deleted row has only its key. */
  | { type: 'row'; table: string; action: 'INSERT' | 'UPDATE' | 'DELETE'; row: Record<string, unknown> }
  /** An event on a topic of the chat. */
  | { type: 'event'; name: string; payload: Record<string, unknown> }
  | { type: 'connection'; connection: Connection }
  | { type: 'presence'; presence: Readonly<Record<string, Presence>> }
