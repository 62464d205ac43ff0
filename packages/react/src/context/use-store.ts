'use client'

import type { ChatState } from '@rapport-chat/client'
import { useCallback, useContext, useSyncExternalStore } from 'react'
import { ChatContext, useChatClient } from './base-context'

/**
 * Returns the selected part of the state, and renders again when that part changes. The selector
 * must return a primitive or an object of the state. Such an object stays the same until its
 * content changes.
 */
export function useChatState<T>(select: (state: ChatState) => T): T {
  const client = useChatClient()
  const subscribe = useCallback((listener: () => void) => client.subscribe(listener), [client])
  return useSyncExternalStore(
    subscribe,
    () => select(client.getState()),
    () => select(client.getServerState()),
  )
}

const never = (): void => undefined

/** Like `useChatState`, for components that also work with only their props, without a provider. */
export function useOptionalChatState<T>(select: (state: ChatState) => T, fallback: T): T {
  const { client } = useContext(ChatContext)
  const subscribe = useCallback((listener: () => void) => (client ? client.subscribe(listener) : never), [client])
  return useSyncExternalStore(
    subscribe,
    () => (client ? select(client.getState()) : fallback),
    () => (client ? select(client.getServerState()) : fallback),
  )
}
