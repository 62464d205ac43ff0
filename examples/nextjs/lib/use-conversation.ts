'use client'

import { useEffect, useMemo, useSyncExternalStore } from 'react'
import type { SupabaseClient } from '@supabase/supabase-js'
import { ConversationFeed } from './conversation-feed'
import type { UserChatAPI } from './user-chat-api'

/** Returns the state of a displayed conversation, and a function that sends messages. */
export function useConversation(api: UserChatAPI, chat: SupabaseClient, conversationId: string, userId: string) {
  const feed = useMemo(() => new ConversationFeed(api, chat, conversationId, userId), [api, chat, conversationId, userId])
  useEffect(() => {
    feed.start()
    return () => feed.stop()
  }, [feed])
  const state = useSyncExternalStore(feed.subscribe, feed.getState, feed.getState)
  return { ...state, send: feed.send.bind(feed) }
}
