'use client'

import type { ChatState } from '@rapport-chat/client'
import { useCallback, useContext, useSyncExternalStore } from 'react'
import { ChatContext, useChatClient } from './base-context'

/**
 * Renders again when the selected part of the state changes. The selector must return a part of
 * the state or a primitive: parts that did not change are the same objects as before.
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

/** Like `useChatState`, for components that also work by props alone, without a provider. */
export function useOptionalChatState<T>(select: (state: ChatState) => T, fallback: T): T {
  const { client } = useContext(ChatContext)
  const subscribe = useCallback((listener: () => void) => (client ? client.subscribe(listener) : never), [client])
  return useSyncExternalStore(
    subscribe,
    () => (client ? select(client.getState()) : fallback),
    () => (client ? select(client.getServerState()) : fallback),
  )
}
