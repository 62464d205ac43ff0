import type * as Actions from './actions'
import type { Clock } from './clock'
import type { Page } from './page'
import type { ChatSocket } from './socket'
import type { ChatStorage } from './storage'
import type { Channel, Locks } from './tabs'

/** The client's dependencies on its environment. Tests replace them. */
export interface Environment {
  clock: Clock
  page: Page
  /** Null if nothing is stored. */
  loadStorage: (() => Promise<ChatStorage>) | null
  /** Null if changes are polled. */
  loadSocket: (() => Promise<ChatSocket>) | null
  locks: Locks | null
  openChannel: ((name: string) => Channel) | null
  /** The actions, if they are already loaded. Otherwise, they are loaded when they are needed. */
  actions?: typeof Actions | null
}
