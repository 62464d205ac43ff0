// For server components: loads what a page shows first, with the cookies or the token of the request.

import { UserChatAPI } from './api'
import type { AccessToken } from './token'
import type { ChatError, InitialPage, InitialState, Result } from './types'
import type * as wire from './wire'

export { UserChatAPI }
export type { ChatError, InitialPage, InitialState, Result }

/** Messages of the first page. */
const PAGE_SIZE = 50

export interface ServerOptions {
  /** The address of Rapport for this server, as in `http://127.0.0.1:4000`. */
  url: string
  /** The `Cookie` header of the request, which contains the session. */
  cookie?: string
  /** Instead of the cookie. */
  accessToken?: AccessToken
  fetch?: typeof fetch
}

export interface InitialRequest {
  /** Also loads the first page of this conversation. */
  conversationId?: string
  /** Surrounds this message with the page. */
  messageId?: string
}

/** The routes, in the name of the request's user. */
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
 * Loads what `ChatClientOptions.initialState` takes. The requests run in parallel. A conversation
 * that the user may not see yields an error with status 404.
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
  // After the cursor, so that no change falls between the two.
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
