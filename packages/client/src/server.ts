// For server components: loads the initial state of a page, with the cookies or the token of the
// request.

import { UserChatAPI } from './api'
import type { AccessToken } from './token'
import type { ChatError, InitialPage, InitialState, Result } from './types'
import type * as wire from './wire'

export { UserChatAPI }
export type { ChatError, InitialPage, InitialState, Result }

/** The number of messages in the first page. */
const PAGE_SIZE = 50

export interface ServerOptions {
  /** The address at which this server reaches Rapport, for example `http://127.0.0.1:4000`. */
  url: string
  /** The `Cookie` header of the request, which contains the session. */
  cookie?: string
  /** A function that returns the session's access token, instead of the cookie. */
  accessToken?: AccessToken
  fetch?: typeof fetch
}

export interface InitialRequest {
  /** Also loads the first page of this conversation. */
  conversationId?: string
  /** Loads the page around this message instead of the end. */
  messageId?: string
}

/** Creates an API client that acts for the user of the request. */
export function createServerApi({ url, cookie, accessToken, fetch: send = fetch }: ServerOptions): UserChatAPI {
  const withCookie: typeof fetch = (input, init) =>
    send(input, { ...init, headers: { ...init?.headers, ...(cookie !== undefined && { cookie }) } })
  return new UserChatAPI({
    baseUrl: `${url.replace(/\/$/, '')}/api/supabase/user-chat`,
    ...(accessToken && { accessToken }),
    fetch: withCookie,
  })
}

/**
 * Loads the value of `ChatClientOptions.initialState`. The requests run in parallel, except for the
 * page of the conversation. If the user may not see the conversation, returns an error with status
 * 404.
 */
export async function loadInitialState(
  api: UserChatAPI,
  { conversationId, messageId }: InitialRequest = {},
): Promise<Result<InitialState>> {
  const [first, me, config, preferences] = await Promise.all([
    api.sync(undefined, { limit: 200 }),
    api.getMe(),
    api.getConfig(),
    api.getPreferences(),
  ])
  if (first.error) return first
  // The page is loaded after the cursor, so that no change in between is missed.
  const page = conversationId === undefined ? null : await loadPage(api, conversationId, messageId, first.data)
  if (page?.error) return { data: null, error: page.error }
  const { conversations, receipts, cursor } = first.data
  return {
    data: {
      conversations,
      receipts,
      cursor,
      ...(me.data && { me: { email: null, role: null, teams: [], can_write: true, ...me.data } }),
      ...(config.data && { config: config.data }),
      ...(preferences.data && { preferences: preferences.data }),
      ...(page?.data && { pages: [page.data] }),
    },
    error: null,
  }
}

async function loadPage(
  api: UserChatAPI,
  conversationId: string,
  messageId: string | undefined,
  { conversations }: wire.SyncPage,
): Promise<Result<InitialPage>> {
  const row = conversations.find(({ id }) => id === conversationId)
  const around = messageId ?? (row && row.unread_count > PAGE_SIZE / 2 ? 'first_unread' : undefined)
  const { data, error } = await api.getPage({
    conversationId,
    limit: PAGE_SIZE,
    ...(around !== undefined && { around }),
  })
  if (error) return { data: null, error }
  const isWhole = around === undefined
  return {
    data: {
      conversationId,
      messages: data.data,
      hasOlder: isWhole ? data.has_more : data.next_cursor !== null,
      hasNewer: !isWhole && data.prev_cursor !== null,
      ...(around !== undefined && { around }),
    },
    error: null,
  }
}
