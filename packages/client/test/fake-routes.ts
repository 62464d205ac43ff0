// Fakes the routes of one conversation in memory.

import type * as wire from '../src/wire'
import { conversation, CONVERSATION, message, syncPage } from './fixtures'

export interface FakeRoutes {
  fetch: typeof fetch
  /** The method and path of each request, for example `POST /messages`. */
  seen: string[]
  /** The cursors of the requests to `/sync`. */
  cursors: (string | null)[]
  messages: wire.Message[]
  row: wire.Conversation
  /** The response to the next `/sync` only, instead of the default. */
  nextSync: wire.SyncPage | Response | null
  /** If it returns a response, that response replaces the default. */
  override: (request: string, body: Record<string, unknown>) => Response | Promise<Response> | undefined
}

export function refusal(status: number, code: string): Response {
  return Response.json({ error: `Refused: ${code}`, code, hint: null, retry_after: null }, { status })
}

export function fakeRoutes(messages: wire.Message[] = [], row: Partial<wire.Conversation> = {}): FakeRoutes {
  const last = messages.at(-1)
  const routes: FakeRoutes = {
    seen: [],
    cursors: [],
    messages,
    row: conversation({ last_seq: last?.seq ?? 0, rev: last?.rev ?? 0, ...row }),
    nextSync: null,
    override: () => undefined,
    fetch: async (input, init) => {
      const url = new URL(String(input), 'http://test')
      const request = `${init?.method} ${url.pathname.replace('/api/supabase/user-chat', '')}`
      routes.seen.push(request)
      const body = (init?.body ? JSON.parse(String(init.body)) : {}) as Record<string, unknown>
      return (await routes.override(request, body)) ?? answer(routes, request, url.searchParams, body)
    },
  }
  return routes
}

function answer(routes: FakeRoutes, request: string, query: URLSearchParams, body: Record<string, unknown>): Response {
  const { messages } = routes
  const [method, path = ''] = request.split(' ')
  const id = path.split('/')[2]
  switch (request.replace(/\/(m\d+|conversation)\b/, '/:id')) {
    case 'GET /sync':
      routes.cursors.push(query.get('since'))
      return sync(routes, query.get('since'))
    case 'GET /messages':
      return page(routes, query)
    case 'POST /messages': {
      const sent = message({
        seq: messages.length + 1,
        sender_id: 'me',
        content: String(body['content']),
        client_message_id: String(body['client_message_id']),
      })
      routes.messages = [...messages, sent]
      return Response.json(sent, { status: 201 })
    }
    case 'GET /messages/:id':
      return Response.json(messages.find((held) => held.id === id))
    case 'PATCH /conversations/:id':
    case 'GET /conversations/:id':
      return Response.json(routes.row)
    case 'POST /conversations/:id/read':
      return Response.json({
        success: true,
        updated: 1,
        unread_count: 0,
        last_read_at: null,
        last_read_message_id: body['message_id'] ?? null,
      })
    case 'GET /presence':
      return Response.json([])
    default:
      return method === 'GET' ? refusal(404, 'not_found') : new Response(null, { status: 204 })
  }
}

/** Returns the list on the first load and nothing later, unless a test has set `nextSync`. */
function sync(routes: FakeRoutes, since: string | null): Response {
  const { nextSync } = routes
  routes.nextSync = null
  if (nextSync instanceof Response) return nextSync
  if (nextSync) return Response.json(nextSync)
  return Response.json(syncPage({ cursor: since ?? 'c0', conversations: since === null ? [routes.row] : [] }))
}

function page({ messages, row }: FakeRoutes, query: URLSearchParams): Response {
  if (query.get('conversation_id') !== CONVERSATION) return refusal(404, 'not_found')
  const limit = Number(query.get('limit') ?? 50)
  const [before, after, around] = [query.get('before'), query.get('after'), query.get('around')]
  const anchor =
    around === null
      ? -1
      : messages.findIndex(({ id, seq }) => id === around || (around === 'first_unread' && seq > row.last_read_seq))
  if (around !== null && anchor < 0) return refusal(404, 'not_found')
  const end =
    around !== null
      ? anchor + limit / 2
      : before !== null
        ? Number(before) - 1
        : after !== null
          ? Number(after) + limit
          : messages.length
  const begin = Math.max(0, around !== null ? anchor - limit / 2 : end - limit)
  const [hasOlder, hasNewer] = [begin > 0, end < messages.length]
  return Response.json({
    data: messages.slice(begin, end),
    has_more: after !== null ? hasNewer : hasOlder,
    next_cursor: hasOlder ? 'older' : null,
    prev_cursor: hasNewer ? 'newer' : null,
  })
}
