'use client'

import type { ConversationClient } from '@rapport-chat/client'
import { useEffect, useRef } from 'react'
import { useChatContext } from '../../context/chat-context'

/**
 * Returns a function that stores a file with the application's `upload` and sends it. Returns
 * undefined if the application has no `upload`.
 */
export function useUploads(conversation: ConversationClient): ((file: File) => void) | undefined {
  const { upload, toast, strings } = useChatContext()
  const running = useRef(new Set<AbortController>())
  useEffect(() => {
    const all = running.current
    return () => {
      for (const one of all) one.abort()
    }
  }, [])
  if (!upload) return undefined
  return (file) => {
    const abort = new AbortController()
    running.current.add(abort)
    const send = async (): Promise<void> => {
      try {
        const stored = await upload(file, { signal: abort.signal, onProgress: () => undefined })
        conversation.send('', { messageType: file.type.startsWith('image/') ? 'image' : 'file', file: stored })
      } catch (error) {
        if (!abort.signal.aborted)
          toast({ kind: 'error', text: strings.messageFailed(error instanceof Error ? error.message : '') })
      } finally {
        running.current.delete(abort)
      }
    }
    void send()
  }
}
