'use client'

import type {
  ChatError,
  ConversationClient,
  Jump,
  Result,
  SendOptions,
  Timeline,
  TimelineMessage,
} from '@rapport-chat/client'
import { useCallback, useEffect, useMemo, useSyncExternalStore } from 'react'
import { useChatClient } from '../context/chat-context'
import { countDisplayed } from '../context/displayed'
import { useChatState } from '../context/use-store'

export interface RealtimeChat {
  messages: readonly TimelineMessage[]
  /** The ids of the users who are typing in this conversation. */
  typingUsers: readonly string[]
  /** The ids of all users who are known to be online. */
  onlineUsers: readonly string[]
  status: Timeline['status']
  error: ChatError | null
  pageError: ChatError | null
  isLoading: boolean
  hasOlder: boolean
  hasNewer: boolean
  isLoadingOlder: boolean
  isLoadingNewer: boolean
  firstUnreadSeq: number | null
  jump: Jump | null
  loadOlder(): Promise<void>
  loadNewer(): Promise<void>
  /** Sends a message and returns its key, for `retry` and `discard`. */
  send(content: string, options?: SendOptions): string
  /** An alias of `send` for older dashboards. */
  addMessage(content: string): string
  retry(key: string): void
  discard(key: string): void
  edit(messageId: string, content: string): Promise<Result<null>>
  remove(messageId: string, options?: { forMe?: boolean }): Promise<Result<null>>
  react(messageId: string, emoji: string): Promise<Result<null>>
  markRead(): Promise<Result<null>>
  markUnread(messageId?: string): Promise<Result<null>>
  jumpTo(messageId: string): Promise<Result<null>>
  jumpToNewest(): Promise<void>
  /** Reports typing, for older dashboards. */
  updateTypingStatus(userId: string, isTyping: boolean): void
}

/** Returns the timeline of a conversation, without opening the conversation. */
export function useTimeline(conversation: ConversationClient): Timeline {
  const subscribe = useCallback((listener: () => void) => conversation.subscribe(listener), [conversation])
  const snapshot = useCallback(() => conversation.getTimeline(), [conversation])
  return useSyncExternalStore(subscribe, snapshot, snapshot)
}

/** Returns only the status of the timeline, so that messages do not render the component. */
export function useTimelineStatus(conversation: ConversationClient): Timeline['status'] {
  const subscribe = useCallback((listener: () => void) => conversation.subscribe(listener), [conversation])
  const snapshot = useCallback(() => conversation.getTimeline().status, [conversation])
  return useSyncExternalStore(subscribe, snapshot, snapshot)
}

/** Opens a conversation while the component is mounted, at the message `at` if it is given. */
export function useOpenConversation(conversationId: string, at?: string): ConversationClient {
  const client = useChatClient()
  const conversation = useMemo(() => client.conversation(conversationId), [client, conversationId])
  useEffect(() => conversation.open(at === undefined ? {} : { at }), [conversation, at])
  useEffect(() => countDisplayed(client, conversationId), [client, conversationId])
  return conversation
}

const NONE: readonly string[] = []

/**
 * Opens a conversation, and returns all state and functions for a view of it. The functions stay
 * the same objects until `conversationId` or the client changes.
 */
export function useRealtimeChat(conversationId: string, _userId?: string): RealtimeChat {
  const client = useChatClient()
  const conversation = useOpenConversation(conversationId)
  const timeline = useTimeline(conversation)
  const typingUsers = useChatState((state) => state.typing[conversationId]) ?? NONE
  const onlineUsers = useOnlineUsers()

  const actions = useMemo(
    () => ({
      loadOlder: () => conversation.loadOlder(),
      loadNewer: () => conversation.loadNewer(),
      send: (content: string, options?: SendOptions) => conversation.send(content, options),
      addMessage: (content: string) => conversation.send(content),
      retry: (key: string) => conversation.retry(key),
      discard: (key: string) => conversation.discard(key),
      edit: (id: string, content: string) => conversation.edit(id, content),
      remove: (id: string, options?: { forMe?: boolean }) => conversation.remove(id, options),
      react: (id: string, emoji: string) => conversation.react(id, emoji),
      markRead: () => conversation.markRead(),
      markUnread: (id?: string) => conversation.markUnread(id),
      jumpTo: (id: string) => conversation.jumpTo(id),
      jumpToNewest: () => conversation.jumpToNewest(),
      updateTypingStatus: (_: string, isTyping: boolean) => void client.api.setTyping(conversationId, isTyping),
    }),
    [client, conversation, conversationId],
  )
  return {
    ...actions,
    messages: timeline.messages,
    typingUsers,
    onlineUsers,
    status: timeline.status,
    error: timeline.error,
    pageError: timeline.pageError,
    isLoading: timeline.status === 'idle' || timeline.status === 'loading',
    hasOlder: timeline.hasOlder,
    hasNewer: timeline.hasNewer,
    isLoadingOlder: timeline.isLoadingOlder,
    isLoadingNewer: timeline.isLoadingNewer,
    firstUnreadSeq: timeline.firstUnreadSeq,
    jump: timeline.jump,
  }
}

/** Returns the ids of the users who are known to be online. */
export function useOnlineUsers(): readonly string[] {
  const presence = useChatState((state) => state.presence)
  return useMemo(() => Object.keys(presence).filter((id) => presence[id]?.status === 'online'), [presence])
}
