'use client'

import type { ChatClient, ChatEvent } from '@rapport-chat/client'
import { useEffect, useRef } from 'react'
import { displayName, firstName } from '../format/names'
import { inline, oneLine } from '../format/text'
import type { NavigationStrings } from '../strings/navigation-en'
import type { ToastMessage } from './base-context'
import { isDisplayed } from './displayed'

/** The interval at which messages of conversations that are not open are announced together. */
const OTHERS_MS = 5000

/** Turns the client's events into announcements and toasts. */
export function useChatEvents(
  client: ChatClient,
  strings: NavigationStrings,
  announce: (text: string) => void,
  toast: (message: ToastMessage) => void,
): void {
  const waiting = useRef(new Map<string, { name: string; count: number }>())

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined
    const flush = (): void => {
      timer = undefined
      for (const { name, count } of waiting.current.values()) announce(strings.announceOther(count, name))
      waiting.current.clear()
    }
    const received = (event: Extract<ChatEvent, { type: 'message_received' }>): void => {
      const { message, conversation } = event
      const person = client.getState().people[message.sender_id ?? ''] ?? message.sender
      const name = firstName(displayName(person, strings))
      if (isDisplayed(client, message.conversation_id))
        announce(strings.announceMessage(name, textOf(message, strings)))
      else if (!conversation?.is_muted) {
        const known = waiting.current.get(message.conversation_id)
        waiting.current.set(message.conversation_id, { name, count: (known?.count ?? 0) + 1 })
        timer ??= setTimeout(flush, OTHERS_MS)
      }
    }
    const stop = client.listen((event) => {
      switch (event.type) {
        case 'message_received':
          return received(event)
        case 'message_sent':
          return announce(strings.announceSent)
        case 'message_failed':
          return announce(strings.announceFailed)
        case 'change_failed':
          // A conflicting edit has its own dialog.
          if (event.change === 'edit' && event.error.code === 'stale_revision') return
          return toast({ kind: 'error', text: strings.changeFailed(event.error.message) })
        case 'message_unavailable':
          return toast({ text: strings.messageUnavailable })
        default:
          return
      }
    })
    return () => {
      stop()
      clearTimeout(timer)
    }
  }, [client, strings, announce, toast])
}

function textOf(
  message: { content: string; message_type: string; file_name: string | null },
  strings: NavigationStrings,
): string {
  if (message.message_type === 'image') return strings.photo
  if (message.message_type === 'file') return inline(message.file_name) || strings.file
  return oneLine(message.content)
}
