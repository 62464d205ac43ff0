'use client'

import type { ConversationClient } from '@rapport-chat/client'
import { useMemo, useSyncExternalStore } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { fileSize } from '../format/time'
import { isAccepted, uploadsOf, type PendingUpload } from './uploads'

export interface UploadsState {
  pending: readonly PendingUpload[]
  /** Undefined if no files can be sent. */
  add: ((file: File) => void) | undefined
  retry(id: number): void
  cancel(id: number): void
}

/** Stores files with the application's `upload` and sends them. */
export function useUploads(conversation: ConversationClient): UploadsState {
  const client = useChatClient()
  const { upload, uploadLimits, toast, strings } = useChatContext()
  const types = useChatState((state) => state.config?.message_types)
  const uploads = useMemo(() => uploadsOf(client, conversation), [client, conversation])
  const pending = useSyncExternalStore(uploads.subscribe, uploads.getAll, uploads.getAll)
  const isAllowed = !types || types.some((type) => type !== 'text')
  return {
    pending,
    add:
      upload && isAllowed
        ? (file) => {
            const { maxBytes = Infinity, accept } = uploadLimits
            if (file.size > maxBytes)
              toast({ kind: 'error', text: strings.fileTooLarge(fileSize(maxBytes, strings.locale)) })
            else if (!isAccepted(file, accept)) toast({ kind: 'error', text: strings.fileNotAccepted })
            else uploads.add(file, upload)
          }
        : undefined,
    retry: (id) => upload && uploads.retry(id, upload),
    cancel: (id) => uploads.cancel(id),
  }
}
