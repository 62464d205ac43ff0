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

/** Short interruptions are not worth a banner. */
const PATIENCE_MS = 2000

export type Trouble = 'connecting' | 'reconnecting' | 'polling' | 'offline' | 'signed_out'

/** What to tell the user about the connection, or null. */
export function useConnectionTrouble(): Trouble | null {
  const connection = useChatState((state) => state.connection)
  const trouble = troubleOf(connection.status)
  const [isOld, setOld] = useState(false)
  const isUrgent = trouble === 'offline' || trouble === 'signed_out'

  // The patience counts from the first sign of trouble, not from each of the states on the way.
  const isTrouble = trouble !== null
  useEffect(() => {
    setOld(false)
    if (!isTrouble) return
    const timer = setTimeout(() => setOld(true), PATIENCE_MS)
    return () => clearTimeout(timer)
  }, [isTrouble])
  return isUrgent || isOld ? trouble : null
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
