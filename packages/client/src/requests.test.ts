import { describe, expect, test, vi } from 'vitest'
import { UserChatAPI } from './api'
import { Requests } from './requests'
import { settled } from './testing'
import { Token } from './token'

/** Creates routes that accept one token. */
function routes(valid: () => string) {
  const seen: string[] = []
  const send: typeof fetch = async (input, init) => {
    const token = new Headers(init?.headers).get('authorization')?.replace('Bearer ', '') ?? ''
    seen.push(`${init?.method} ${String(input)} ${token}`.trim())
    if (token === valid()) return Response.json({ isFine: true })
    return Response.json(
      { error: 'The token has expired', code: 'token_expired', hint: null, retry_after: null },
      { status: 401 },
    )
  }
  return { seen, send }
}

describe('what the user did is painted first', () => {
  function waiting() {
    const { send, seen } = routes(() => '')
    let paint = (): void => {}
    const painted = () => new Promise<void>((resolve) => (paint = resolve))
    const requests = new Requests({ baseUrl: '', token: new Token(undefined), fetch: send, painted })
    return { requests, seen, paint: () => paint() }
  }

  test('a write waits for the frame; a read and the last request of a page do not', async () => {
    const { requests, seen, paint } = waiting()
    void requests.send('POST', '/messages', { body: {} })
    void requests.send('GET', '/messages')
    void requests.send('DELETE', '/presence', { keepalive: true })
    await settled()
    expect(seen).toEqual(['GET /messages', 'DELETE /presence'])
    paint()
    await settled()
    expect(seen).toContain('POST /messages')
  })

  test('signing out before the frame cancels a write', async () => {
    const { requests, seen, paint } = waiting()
    const sent = requests.send('POST', '/messages', { body: {} })
    requests.cancelAll()
    paint()
    expect((await sent).error?.code).toBe('aborted')
    expect(seen).toEqual([])
  })
})

describe('a token that was refused', () => {
  test('is replaced once for all requests', async () => {
    const { send } = routes(() => 'new')
    let refreshes = 0
    const token = new Token(async (options) => {
      if (options?.force) {
        refreshes += 1
        return 'new'
      }
      return refreshes > 0 ? 'new' : 'old'
    })
    const requests = new Requests({ baseUrl: '', token, fetch: send })
    const results = await Promise.all(Array.from({ length: 5 }, () => requests.send('GET', '/config')))
    expect(results.every(({ error }) => error === null)).toBe(true)
    expect(refreshes).toBe(1)
  })

  test('is reported when its replacement is also refused', async () => {
    const { send, seen } = routes(() => 'never')
    const reports: string[] = []
    const token = new Token(async (options) => (options?.force ? 'second' : 'first'))
    const requests = new Requests({ baseUrl: '', token, fetch: send, onSignedOut: ({ code }) => reports.push(code) })
    const { error } = await requests.send('GET', '/config')
    expect(error).toMatchObject({ code: 'token_expired', status: 401 })
    expect(seen).toEqual(['GET /config first', 'GET /config second'])
    expect(reports).toEqual(['token_expired'])
  })

  test('is not refreshed if the application replaced it in the meantime', async () => {
    const { send } = routes(() => 'new')
    let value = 'old'
    const token = new Token(async (options) => {
      expect(options?.force).not.toBe(true)
      const before = value
      value = 'new'
      return before
    })
    const requests = new Requests({
      baseUrl: '',
      token,
      fetch: async (input, init) => {
        const response = await send(input, init)
        token.set('new')
        return response
      },
    })
    expect((await requests.send('GET', '/config')).error).toBeNull()
  })
})

describe('the user', () => {
  /** Creates routes that accept only requests of this user, as the server does in a session. */
  const sessionOf = (user: string, seen: string[]): typeof fetch =>
    async (input, init) => {
      const url = new URL(String(input), 'http://test')
      seen.push(`${init?.method} ${url.pathname} ${url.searchParams.getAll('current_user_id').join()}`)
      if ([user, null].includes(url.searchParams.get('current_user_id'))) return Response.json({})
      return Response.json({ error: 'no', code: 'identity_mismatch', hint: null, retry_after: null }, { status: 403 })
    }
  const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

  test('is named in every request exactly once', async () => {
    const seen: string[] = []
    const api = new UserChatAPI({ baseUrl: '', userId: 'ana', fetch: sessionOf('ana', seen) })
    await api.getConfig()
    await api.postMessage({ content: 'Hello', clientMessageId: '1' })
    await api.markAsRead(['m'], 'ana')
    await api.updateConversation('c', { draft: 'Hello' })
    await api.endPresence()
    await api.getConversations('ana')
    await api.searchUsers('be', 'ana')
    expect(seen).toEqual([
      'GET /config ana',
      'POST /messages ana',
      'PUT /messages ana',
      'PATCH /conversations/c ana',
      'DELETE /presence ana',
      'GET /conversations ana',
      'GET /search ana',
    ])
  })

  test('is signed out in the session of another user, whatever the method', async () => {
    const reports: string[] = []
    let refreshes = 0
    const requests = new Requests({
      baseUrl: '',
      userId: 'ana',
      token: new Token(async (options) => {
        if (options?.force) refreshes += 1
        return 'of Ben'
      }),
      fetch: sessionOf('ben', []),
      onSignedOut: ({ code }) => reports.push(code),
    })
    for (const method of METHODS) expect((await requests.send(method, '/x')).error?.status).toBe(403)
    expect(reports).toEqual(METHODS.map(() => 'identity_mismatch'))
    // The token is not refreshed, because a new one would also be Ben's.
    expect(refreshes).toBe(0)
  })

  test('is not signed out by a missing permission', async () => {
    const reports: string[] = []
    const requests = new Requests({
      baseUrl: '',
      userId: 'ana',
      token: new Token(undefined),
      fetch: async () =>
        Response.json({ error: 'no', code: 'forbidden', hint: null, retry_after: null }, { status: 403 }),
      onSignedOut: ({ code }) => reports.push(code),
    })
    expect((await requests.send('GET', '/x')).error?.code).toBe('forbidden')
    expect(reports).toEqual([])
  })
})

describe('after `cancelAll`', () => {
  test('a request that waits for its token is not sent', async () => {
    const seen: string[] = []
    let give: (token: string) => void = () => {}
    const token = new Token(() => new Promise((resolve) => (give = resolve)))
    const fetcher: typeof fetch = async (input) => {
      seen.push(String(input))
      return Response.json({})
    }
    const requests = new Requests({ baseUrl: '', token, fetch: fetcher })
    const waiting = requests.send('GET', '/before')
    requests.cancelAll()
    give('token')
    expect((await waiting).error?.code).toBe('aborted')
    const next = requests.send('GET', '/after')
    give('token')
    expect((await next).error).toBeNull()
    expect(seen).toEqual(['/after'])
  })

  test('a response in flight is ignored and does not sign the user out', async () => {
    let answer: (response: Response) => void = () => {}
    const reports: string[] = []
    const requests = new Requests({
      baseUrl: '',
      token: new Token(undefined),
      fetch: () => new Promise((resolve) => (answer = resolve)),
      onSignedOut: ({ code }) => reports.push(code),
    })
    for (const response of [Response.json({ secret: true }), new Response('', { status: 401 })]) {
      const waiting = requests.send('GET', '/me')
      await settled()
      requests.cancelAll()
      answer(response)
      expect(await waiting).toMatchObject({ data: null, error: { code: 'aborted' } })
    }
    expect(reports).toEqual([])
  })
})

test('a message is sent on a page served over plain HTTP, which has no `crypto.randomUUID`', async () => {
  vi.stubGlobal('crypto', { getRandomValues: crypto.getRandomValues.bind(crypto) })
  const api = new UserChatAPI({ baseUrl: '', fetch: async () => Response.json({}) })
  expect((await api.sendMessage('c', 'me', 'Hello')).error).toBeNull()
  vi.unstubAllGlobals()
})

describe('every failure is a value', () => {
  const failing = (answer: () => Promise<Response>) => new UserChatAPI({ baseUrl: '', fetch: answer }).getConfig()

  test('no network', async () => {
    expect(await failing(() => Promise.reject(new TypeError('failed to fetch')))).toMatchObject({
      data: null,
      error: { code: 'network', status: 0 },
    })
  })

  test('a response of a proxy', async () => {
    const answer = async () => new Response('<html>', { status: 502, headers: { 'retry-after': '3' } })
    expect(await failing(answer)).toMatchObject({ error: { code: 'unexpected_answer', status: 502, retryAfter: 3 } })
  })

  test('an error of another service, without the field `error`', async () => {
    const answer = async () =>
      Response.json({ code: 'PGRST301', message: 'JWT expired' }, { status: 400, statusText: 'Bad Request' })
    expect(await failing(answer)).toMatchObject({ error: { code: 'PGRST301', status: 400, message: 'Bad Request' } })
  })

  test('a page instead of JSON', async () => {
    expect((await failing(async () => new Response('<html>'))).error).not.toBeNull()
  })

  test('a token that cannot be obtained', async () => {
    const api = new UserChatAPI({
      accessToken: () => Promise.reject(new Error('signed out')),
      fetch: async () => Response.json({}),
    })
    expect((await api.getConfig()).error).toMatchObject({ code: 'network', status: 0 })
  })

  test('a request that was cancelled', async () => {
    const abort = new AbortController()
    abort.abort()
    const api = new UserChatAPI({ baseUrl: '', fetch: (_, init) => Promise.reject(init?.signal?.reason) })
    expect((await api.getConfig({ signal: abort.signal })).error?.code).toBe('aborted')
  })
})

test('requests have the addresses and bodies that the routes expect', async () => {
  const seen: string[] = []
  const api = new UserChatAPI({
    baseUrl: '',
    fetch: async (input, init) => {
      seen.push(`${init?.method} ${String(input)} ${String(init?.body ?? '')}`.trim())
      return new Response(null, { status: 204 })
    },
  })
  await api.getMessages('c', 20, 40)
  await api.getPage({ conversationId: 'c', around: 'first_unread' })
  await api.addReaction('m', '👍')
  await api.updateConversation('c', { draft: null })
  await api.updateTypingStatus('me', null)
  expect(seen).toEqual([
    'GET /messages?conversationId=c&limit=20&offset=40',
    'GET /messages?conversation_id=c&around=first_unread&include_deleted=true&format=page',
    'PUT /messages/m/reactions/%F0%9F%91%8D',
    'PATCH /conversations/c {"draft":null}',
    'PUT /presence/typing {"user_id":"me","typing_to_user_id":null}',
  ])
})
