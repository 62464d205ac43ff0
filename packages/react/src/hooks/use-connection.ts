'use client'

import type { Connection } from '@rapport-chat/client'
import { useCallback, useEffect, useState } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'

export interface ConnectionState extends Connection {
  retry(): void
}

export function useConnection(): ConnectionState {
  const client = useChatClient()
  const connection = useChatState((state) => state.connection)
  const retry = useCallback(() => client.reconnect(), [client])
  return { ...connection, retry }
}

/**
 * An interruption is shown only if it lasts longer than this. The states `offline` and `signed_out`
 * are shown immediately.
 */
const PATIENCE_MS = 2000

export type Trouble = 'connecting' | 'reconnecting' | 'polling' | 'offline' | 'signed_out'

/** Returns the problem with the connection that the user should see, or null. */
export function useConnectionTrouble(): Trouble | null {
  const connection = useChatState((state) => state.connection)
  const trouble = troubleOf(connection.status)
  const isUrgent = trouble === 'offline' || trouble === 'signed_out'
  const { downSince } = connection
  /** The start of the interruption that has lasted long enough to be shown. */
  const [shown, setShown] = useState<number | null>(null)

  useEffect(() => {
    if (downSince === null) return
    const timer = setTimeout(() => setShown(downSince), Math.max(0, downSince + PATIENCE_MS - Date.now()))
    return () => clearTimeout(timer)
  }, [downSince])
  return isUrgent || (downSince !== null && shown === downSince) ? trouble : null
}

function troubleOf(status: Connection['status']): Trouble | null {
  switch (status) {
    case 'connecting':
    case 'joining':
    case 'catching_up':
      return 'connecting'
    case 'idle':
    case 'live':
      return null
    default:
      return status
  }
}
