'use client'

import type { Presence, PresenceStatus, Result } from '@rapport-chat/client'
import { useCallback, useEffect } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { ownStatus } from '../format/own-status'
import { useOnlineUsers } from './use-realtime-chat'

export interface StatusOptions {
  until?: string | null
  text?: string | null
  emoji?: string | null
}

export interface UserPresence {
  presence: Readonly<Record<string, Presence>>
  onlineUsers: readonly string[]
  isOnline(id: string): boolean
  lastSeen(id: string): string | null
  /** The signed-in user's own status; `online` until it is known, because the page is open. */
  myStatus: PresenceStatus
  setStatus(status: PresenceStatus, options?: StatusOptions): Promise<Result<null>>
  /** An alias of `setStatus` for older dashboards. */
  updatePresence(status: PresenceStatus): Promise<Result<null>>
}

/** Returns the known presence of users. The presence of `userId` is loaded and kept current. */
export function useUserPresence(userId?: string): UserPresence {
  const client = useChatClient()
  const presence = useChatState((state) => state.presence)
  const onlineUsers = useOnlineUsers()
  const myStatus = useChatState((state) => ownStatus(state, client.userId)) ?? 'online'
  useEffect(() => (userId === undefined ? undefined : client.watchPresence([userId])), [client, userId])

  const setStatus = useCallback(
    (status: PresenceStatus, options?: StatusOptions) => client.setStatus(status, options),
    [client],
  )
  return {
    presence,
    onlineUsers,
    isOnline: (id) => presence[id]?.status === 'online',
    lastSeen: (id) => presence[id]?.last_seen ?? null,
    myStatus,
    setStatus,
    updatePresence: setStatus,
  }
}

/** Keeps the presence of the given users current, for lists. Returns all known presence. */
export function useWatchedPresence(userIds: readonly string[]): Readonly<Record<string, Presence>> {
  const client = useChatClient()
  const presence = useChatState((state) => state.presence)
  const key = userIds.join(' ')
  useEffect(() => (key ? client.watchPresence(key.split(' ')) : undefined), [client, key])
  return presence
}
