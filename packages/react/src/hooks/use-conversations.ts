'use client'

import type { ChatError, Conversation, Result } from '@rapport-chat/client'
import { useCallback, useMemo, useState } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { isListed } from '../format/listed'
import { isUnread } from '../format/unread'

export { isUnread } from '../format/unread'

export type ConversationFilter = 'all' | 'unread' | 'archived'

/** The number of rows rendered at first, and added each time the user scrolls near the end. */
const PAGE = 30

export interface Conversations {
  conversations: readonly Conversation[]
  isLoading: boolean
  error: ChatError | null
  hasMore: boolean
  loadMore(): void
  /** Finds or creates the conversation with a person. */
  open(personId: string): Promise<Result<Conversation>>
  archive(id: string, isArchived?: boolean): Promise<Result<null>>
  pin(id: string, isPinned?: boolean): Promise<Result<null>>
  mute(id: string, isMuted?: boolean, until?: string | null): Promise<Result<null>>
  remove(id: string): Promise<Result<null>>
}

/**
 * Returns the list of conversations. `archived` is for older dashboards, and is ignored if `filter`
 * is set.
 */
export function useConversations(options: { archived?: boolean; filter?: ConversationFilter } = {}): Conversations {
  const client = useChatClient()
  const all = useChatState((state) => state.conversations)
  const status = useChatState((state) => state.conversationsStatus)
  const error = useChatState((state) => state.conversationsError)
  const filter = options.filter ?? (options.archived ? 'archived' : 'all')
  const [limit, setLimit] = useState(PAGE)

  const matching = useMemo(
    () =>
      all.filter((conversation) => {
        if (!isListed(conversation, client.userId)) return false
        if (filter === 'archived') return conversation.is_archived
        return !conversation.is_archived && (filter === 'all' || isUnread(conversation))
      }),
    [all, filter, client],
  )
  const conversations = useMemo(() => matching.slice(0, limit), [matching, limit])
  const loadMore = useCallback(() => setLimit((old) => old + PAGE), [])
  const actions = useMemo(
    () => ({
      open: (personId: string) => client.openConversation(personId),
      archive: (id: string, isArchived = true) => client.archive(id, isArchived),
      pin: (id: string, isPinned = true) => client.pin(id, isPinned),
      mute: (id: string, isMuted = true, until?: string | null) => client.mute(id, isMuted, until),
      remove: (id: string) => client.clear(id),
    }),
    [client],
  )
  return {
    conversations,
    isLoading: status === 'loading',
    error,
    hasMore: matching.length > limit,
    loadMore,
    ...actions,
  }
}

/** Returns one conversation of the list, or null while it is not loaded. */
export function useConversation(id: string): Conversation | null {
  return useChatState((state) => state.conversations.find((conversation) => conversation.id === id) ?? null)
}
