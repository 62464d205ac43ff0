'use client'

import { useEffect, useState } from 'react'
import { useChatClient } from '../context/chat-context'

/**
 * Whether the user has blocked this person. Asked for only where the user cannot write: the server
 * tells nobody why that is, but one's own blocks are in `GET /blocks`.
 */
export function useIsBlocked(personId: string | undefined, canSend: boolean): boolean {
  const client = useChatClient()
  const [blocked, setBlocked] = useState<string | null>(null)
  useEffect(() => {
    if (canSend || !personId) return
    const abort = new AbortController()
    void client.api.getBlocks({ signal: abort.signal }).then(({ data }) => {
      if (!abort.signal.aborted)
        setBlocked(data?.some((block) => block.user_id === personId) ? personId : null)
    })
    return () => abort.abort()
  }, [client, personId, canSend])
  return !canSend && blocked !== null && blocked === personId
}
