'use client'

import type { ChatClient } from '@rapport-chat/client'
import { useEffect } from 'react'
import type { ChatTarget } from '../context/base-context'
import { isDisplayed } from '../context/displayed'
import { useLatest } from '../context/use-latest'
import { displayName } from '../format/names'
import { previewText } from '../format/preview'
import type { NavigationStrings } from '../strings/navigation-en'
import { chime } from './chime'
import { shouldAlert } from './should-alert'

/** Plays sounds and shows browser notifications for new messages, as the user's settings allow. */
export function useAlerts(
  client: ChatClient,
  strings: NavigationStrings,
  onNavigate: ((target: ChatTarget) => void) | null,
): void {
  const navigate = useLatest(onNavigate)

  useEffect(() => {
    // The settings must be loaded before the first message arrives.
    if (!client.getState().preferences) void client.loadPreferences()
    return client.listen((event) => {
      if (event.type !== 'message_received') return
      const { message, conversation } = event
      const state = client.getState()
      const now = new Date()
      const isSeen = document.hasFocus() && isDisplayed(client, message.conversation_id)
      const { preferences } = state
      if (!preferences || !shouldAlert(state, { message, conversation, isSeen, now })) return
      if (preferences.sound_enabled) chime(now.getTime())
      if (
        !preferences.browser_enabled ||
        document.hasFocus() ||
        typeof Notification === 'undefined' ||
        Notification.permission !== 'granted'
      )
        return
      const person = state.people[message.sender_id ?? ''] ?? message.sender
      const notification = new Notification(displayName(person, strings), {
        body: preferences.show_preview ? previewText(message, strings) : strings.newMessage,
        // A newer message of the conversation replaces the older notification.
        tag: `rapport:${message.conversation_id}`,
      })
      notification.addEventListener('click', () => {
        window.focus()
        navigate.current?.({ to: 'conversation', conversationId: message.conversation_id, messageId: message.id })
        notification.close()
      })
    })
  }, [client, strings, navigate])
}
