import type { ChatState, ConnectionStatus, PresenceStatus } from '@rapport-chat/client'

/** In these states, the page has no socket, so the server does not count the user as online. */
const AWAY: ReadonlySet<ConnectionStatus> = new Set(['polling', 'reconnecting', 'offline', 'signed_out'])

/**
 * Returns the signed-in user's own status, or undefined while it is not known. The server takes a
 * moment to notice that a page has opened. Until then, the server's `offline` is not shown, unless
 * the user chose it or does not share their presence.
 */
export function ownStatus({ presence, connection, preferences }: ChatState, userId: string): PresenceStatus | undefined {
  const own = presence[userId]
  if (own?.status !== 'offline' || own.manual_status !== null || AWAY.has(connection.status)) return own?.status
  if (!preferences) return undefined
  return preferences.share_presence ? 'online' : 'offline'
}
