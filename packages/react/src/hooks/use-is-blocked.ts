'use client'

import { useEffect, useState } from 'react'
import { useChatClient } from '../context/chat-context'

/**
 * Whether the user has blocked this person. The blocks are requested only if the user cannot write.
 * The server does not report the reason for that, but `GET /blocks` returns the user's own blocks.
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
