// Creates a client in a browser. A server can also create a client, but not start it.

import { browserPage } from './browser-page'
import type { ChatClient, ChatClientOptions } from './chat-client'
import { Client } from './client'
import { systemClock } from './clock'
import { quietPage } from './page'
import type { Locks } from './tabs'

/** Creates the client of one user. It does nothing until `start` is called. */
export function createChatClient(options: ChatClientOptions): ChatClient {
  const { userId, socketUrl, anonKey, tabs = 'shared', persist = 'outbox', now } = options
  const page = browserPage()
  const hasChannels = page !== null && 'BroadcastChannel' in globalThis
  const isShared = hasChannels && tabs === 'shared' && 'locks' in navigator
  const canStore = persist !== false && 'indexedDB' in globalThis
  return new Client(options, {
    clock: systemClock(now),
    page: page ?? quietPage,
    loadStorage: canStore ? async () => (await import('./idb-storage')).idbStorage(userId) : null,
    // Loaded while the first requests run, because the first page needs no socket.
    loadSocket:
      socketUrl && anonKey && 'WebSocket' in globalThis
        ? async () => new (await import('./realtime-socket')).RealtimeSocket({ url: socketUrl, anonKey })
        : null,
    locks: isShared ? (navigator.locks as Locks) : null,
    openChannel: hasChannels ? (name) => new BroadcastChannel(name) : null,
  })
}
