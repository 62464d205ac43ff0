// Tests two clients with the real server.

import { createHmac, randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { Client } from '../src/client'
import { systemClock, type Clock } from '../src/clock'
import { quietPage, type Page } from '../src/page'
import { RealtimeSocket } from '../src/realtime-socket'
import { createServerApi, loadInitialState } from '../src/server'
import type { AccessToken } from '../src/token'
import type { Connection, InitialState } from '../src/types'
import { startProxy, type Proxy } from './proxy'
import { PATIENCE_MS, startServer, type Server } from './server'
import { until } from './until'

let server: Server
const cleanups: (() => unknown)[] = []

beforeAll(async () => {
  server = await startServer()
}, PATIENCE_MS)
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})
afterAll(() => server.stop(), PATIENCE_MS)

const idOf = (name: string) => server.env[`USER_ID_${name}`]!
const tokenOf = (name: string) => server.env[`USER_TOKEN_${name}`]!

/** Starts a client of this user, which connects through the proxy if there is one. */
function clientOf(
  name: string,
  {
    proxy,
    socket = true,
    speed = 1,
    accessToken = async () => tokenOf(name),
    initialState,
    page = quietPage,
  }: {
    proxy?: Proxy
    socket?: boolean
    speed?: number
    accessToken?: AccessToken
    initialState?: InitialState
    page?: Page
  } = {},
): Client {
  const base = proxy ? `http://127.0.0.1:${proxy.port}` : server.env['API_URL']!
  const client = new Client(
    {
      userId: idOf(name),
      baseUrl: `${base}/api/supabase/user-chat`,
      accessToken,
      ...(initialState && { initialState }),
    },
    {
      clock: fastClock(speed),
      page,
      loadStorage: null,
      loadSocket: socket
        ? async () =>
            new RealtimeSocket({
              url: `${base}/realtime/v1`,
              anonKey: server.env['ANON_KEY']!,
              WebSocket: WebSocket as never,
              startHeartbeat: (beat) => {
                const timer = setInterval(beat, 25_000 / speed)
                return () => clearInterval(timer)
              },
            })
        : null,
      locks: null,
      openChannel: null,
    },
  )
  cleanups.push(client.start())
  return client
}

/** Creates a clock that runs faster, so that a test need not wait for all pauses of an outage. */
function fastClock(speed: number): Clock {
  const [clock, start] = [systemClock(), Date.now()]
  return {
    now: () => start + (Date.now() - start) * speed,
    after: (ms, run) => clock.after(ms / speed, run),
    random: clock.random,
  }
}

/** Creates a token of this user, valid for `seconds`, like those of the project's sign-in. */
function mint(name: string, seconds: number): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = Math.floor(Date.now() / 1_000) + seconds
  const unsigned = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: idOf(name), role: 'authenticated', aud: 'authenticated', exp })}`
  return `${unsigned}.${createHmac('sha256', server.env['JWT_SECRET']!).update(unsigned).digest('base64url')}`
}

const live = (client: Client) => until(client, 'a live connection', ({ connection }) => connection.status === 'live')
const texts = (client: Client, id: string) =>
  client
    .conversation(id)
    .getTimeline()
    .messages.map(({ content }) => content)

/** Opens the conversation of Ana and another user in both clients. */
async function chat(ana: Client, other: Client, otherName: string): Promise<string> {
  const { data, error } = await ana.openConversation(idOf(otherName))
  expect(error).toBeNull()
  const { id } = data!
  for (const client of [ana, other]) {
    cleanups.push(client.conversation(id).open())
    await until(
      client,
      'the conversation',
      ({ conversations, timelines }) => conversations.some((row) => row.id === id) && timelines[id]?.status === 'ready',
    )
  }
  return id
}

describe('between two clients', () => {
  test(
    'messages, ticks, typing, reactions, edits and deletions arrive',
    async () => {
      const [ana, ben] = [clientOf('ANA'), clientOf('BEN')]
      await Promise.all([live(ana), live(ben)])
      await until(
        ana,
        'who the user is',
        ({ me }) => me.full_name === 'Ana Alvarez' && me.role === 'user' && me.teams.length > 0,
      )
      const id = await chat(ana, ben, 'BEN')

      const text = randomUUID()
      const key = ana.conversation(id).send(text)
      expect(ana.conversation(id).getTimeline().messages.at(-1)).toMatchObject({ key, content: text, seq: Infinity })
      await until(ben, 'the message', () => texts(ben, id).includes(text))
      const received = ben
        .conversation(id)
        .getTimeline()
        .messages.find(({ content }) => content === text)!
      expect(received).toMatchObject({ isOwn: false, sender: { full_name: 'Ana Alvarez' } })
      await until(
        ana,
        'a delivery tick',
        () => ana.conversation(id).getTimeline().messages.at(-1)?.state === 'delivered',
      )
      ben.conversation(id).setVisible({ seq: received.seq, isAtEnd: true })
      await until(ana, 'a read tick', () => ana.conversation(id).getTimeline().messages.at(-1)?.state === 'read')
      await until(ben, 'no unread message', ({ unread }) => (unread.byConversation[id] ?? 0) === 0)
      expect(ana.conversation(id).getTimeline().messages.at(-1)?.key).toBe(key)

      ben.conversation(id).setDraft('I am typ')
      await until(ana, 'typing', ({ typing }) => typing[id]?.includes(idOf('BEN')) ?? false)
      ben.conversation(id).stopTyping()
      await until(ana, 'no typing', ({ typing }) => typing[id] === undefined)

      await ben.conversation(id).react(received.id, '👍')
      const shown = () =>
        ana
          .conversation(id)
          .getTimeline()
          .messages.find(({ id: own }) => own === received.id)
      await until(ana, 'the reaction', () => shown()?.reactions[0]?.count === 1)
      await ben.conversation(id).react(received.id, '👍')
      await until(ana, 'no reaction', () => shown()?.reactions.length === 0)

      await ana.conversation(id).edit(received.id, 'Edited')
      await until(ben, 'the edit', () => texts(ben, id).includes('Edited'))
      await ana.conversation(id).remove(received.id)
      await until(ben, 'the deletion', () =>
        ben
          .conversation(id)
          .getTimeline()
          .messages.some((message) => message.id === received.id && message.is_deleted),
      )
    },
    PATIENCE_MS,
  )

  // The server records which messages it has sent to a device, so clients report no deliveries.
  for (const [way, socket] of [
    ['socket', true],
    ['long poll', false],
  ] as const) {
    test(
      `a message counts as delivered to a hidden page without an open conversation, by ${way}`,
      async () => {
        const hidden: Page = { ...quietPage, isVisible: () => false, hasFocus: () => false }
        const [ana, ben] = [clientOf('ANA'), clientOf('BEN', { page: hidden, socket })]
        await live(ana)
        await until(ben, 'a connection', ({ connection }) => ['live', 'polling'].includes(connection.status))
        const { data } = await ana.openConversation(idOf('BEN'))
        const room = ana.conversation(data!.id)
        cleanups.push(room.open())
        const text = randomUUID()
        room.send(text)
        const state = () => room.getTimeline().messages.find(({ content }) => content === text)?.state
        await until(ana, 'a delivery tick', () => state() === 'delivered')
        expect(ben.getState().unread.byConversation[data!.id]).toBeGreaterThan(0)
      },
      PATIENCE_MS,
    )
  }

  test(
    'nothing is lost or duplicated when the network breaks',
    async () => {
      const proxy = await startProxy(new URL(server.env['API_URL']!))
      cleanups.push(() => proxy.close())
      const [ana, ben] = [clientOf('ANA', { proxy }), clientOf('BEN')]
      await Promise.all([live(ana), live(ben)])
      const id = await chat(ana, ben, 'BEN')
      const sent: string[] = []
      const send = (client: Client, count: number) => {
        for (let index = 0; index < count; index += 1) {
          const text = randomUUID()
          sent.push(text)
          client.conversation(id).send(text)
        }
      }
      send(ana, 2)
      proxy.cut()
      await until(ana, 'a lost connection', ({ connection }) => connection.status !== 'live')
      send(ana, 3)
      send(ben, 3)
      await until(ben, 'Ben to have sent', ({ unsentCount }) => unsentCount === 0)
      expect(ana.getState().unsentCount).toBeGreaterThan(0)
      // Ana does not receive these changes yet.
      const [first, second, third] = ben
        .conversation(id)
        .getTimeline()
        .messages.filter(({ isOwn }) => isOwn)
      for (const result of [
        await ben.conversation(id).edit(first!.id, 'edited while Ana was away'),
        await ben.conversation(id).remove(second!.id),
        await ben.conversation(id).react(third!.id, '👍'),
        await ben.conversation(id).pinMessage(third!.id, true),
      ]) {
        expect(result.error).toBeNull()
      }
      proxy.restore()
      ana.reconnect()
      await live(ana)
      const changed = new Set([first!.content, second!.content])
      const left = sent.filter((text) => !changed.has(text))
      const isWhole = (client: Client) => left.every((text) => texts(client, id).includes(text))
      await until(ana, 'all messages', ({ unsentCount }) => unsentCount === 0 && isWhole(ana))
      await until(ben, 'all messages', () => isWhole(ben))
      for (const client of [ana, ben]) {
        const own = client.conversation(id).getTimeline().messages
        expect(own.filter(({ content }) => left.includes(content))).toHaveLength(left.length)
        expect(new Set(own.map(({ key }) => key)).size).toBe(own.length)
        expect(own.every(({ seq }, index) => index === 0 || seq > own[index - 1]!.seq)).toBe(true)
      }
      const shown = (client: Client) =>
        client
          .conversation(id)
          .getTimeline()
          .messages.map((row) => [
            row.id,
            row.content,
            row.is_deleted,
            row.is_pinned,
            row.reactions.map(({ reaction, user_ids }) => [reaction, user_ids]),
          ])
      expect(shown(ana)).toEqual(shown(ben))
    },
    PATIENCE_MS,
  )
})

test(
  'the client recovers by itself from an outage that lasts until the longest pause',
  async () => {
    const proxy = await startProxy(new URL(server.env['API_URL']!))
    cleanups.push(() => proxy.close())
    const [ana, ben] = [clientOf('ANA', { proxy, speed: 10 }), clientOf('BEN')]
    await Promise.all([live(ana), live(ben)])
    const id = await chat(ana, ben, 'BEN')
    proxy.cut()
    const [fromAna, fromBen] = [randomUUID(), randomUUID()]
    ana.conversation(id).send(fromAna)
    ben.conversation(id).send(fromBen)
    const pause = ({ retryAt, since }: Connection) => (retryAt ?? since) - since
    await until(ana, 'the longest pause', ({ connection }) => pause(connection) > 20_000)
    proxy.restore()
    await live(ana)
    const hasOnce = (client: Client, text: string) => texts(client, id).filter((other) => other === text).length === 1
    for (const client of [ana, ben]) {
      await until(client, 'both messages', () => hasOnce(client, fromAna) && hasOnce(client, fromBen))
    }
    expect(ana.getState().unsentCount).toBe(0)
  },
  PATIENCE_MS,
)

test(
  'nothing is lost when tokens expire during use',
  async () => {
    let token = mint('ANA', 2)
    const refreshes: string[] = []
    const accessToken: AccessToken = async (options) => {
      if (options?.force) {
        token = mint('ANA', 2)
        refreshes.push(token)
      }
      return token
    }
    const [ana, ben] = [clientOf('ANA', { accessToken }), clientOf('BEN')]
    await Promise.all([live(ana), live(ben)])
    const id = await chat(ana, ben, 'BEN')
    const statuses = new Set<string>()
    cleanups.push(ana.subscribe(() => statuses.add(ana.getState().connection.status)))
    while (refreshes.length < 3) {
      const text = randomUUID()
      ben.conversation(id).send(text)
      await until(ana, 'the message', () => texts(ana, id).includes(text))
    }
    expect([...statuses].filter((status) => ['signed_out', 'polling'].includes(status))).toEqual([])
  },
  PATIENCE_MS,
)

test(
  'a server component loads the first page with the cookie of the session',
  async () => {
    const [ana, ben] = [clientOf('ANA'), clientOf('BEN')]
    await Promise.all([live(ana), live(ben)])
    const id = await chat(ana, ben, 'BEN')
    const session = {
      access_token: tokenOf('ANA'),
      refresh_token: 'unused',
      token_type: 'bearer',
      expires_in: 3_600,
      expires_at: Math.floor(Date.now() / 1_000) + 3_600,
    }
    const cookie = `sb-project-auth-token=base64-${Buffer.from(JSON.stringify(session)).toString('base64url')}`
    const api = createServerApi({ url: server.env['API_URL']!, cookie })
    const text = randomUUID()
    ben.conversation(id).send(text)
    const stored = () =>
      ben
        .conversation(id)
        .getTimeline()
        .messages.find(({ content, seq }) => content === text && seq !== Infinity)
    await until(ben, 'Ben to have sent', () => stored() !== undefined)
    const { data, error } = await loadInitialState(api, { conversationId: id, messageId: stored()!.id })
    expect(error).toBeNull()
    expect(data?.me?.full_name).toBe('Ana Alvarez')
    expect(data?.pages?.[0]?.messages.at(-1)?.content).toBe(text)
    const initial = clientOf('ANA', { initialState: data! }).getServerState()
    expect(initial.timelines[id]?.messages.at(-1)?.content).toBe(text)
  },
  PATIENCE_MS,
)

test(
  'nothing is read or written in the session of another user',
  async () => {
    const [ana, ben] = [clientOf('ANA'), clientOf('BEN')]
    await Promise.all([live(ana), live(ben)])
    const id = await chat(ana, ben, 'BEN')
    const before = randomUUID()
    ben.conversation(id).send(before)
    await until(ana, 'the message', () => texts(ana, id).includes(before))
    const messageId = ana.conversation(id).getTimeline().messages.at(-1)!.id
    const stored = async () => {
      const { data } = await ben.api.getPage({ conversationId: id })
      return data!.data.map((row) => [row.id, row.content, row.reactions, row.is_pinned, row.is_deleted])
    }
    const earlier = await stored()
    expect(earlier.at(-1)).toEqual([messageId, before, [], false, false])

    // All tabs of a browser share one session. This page is Ana's, but another tab has signed in as
    // Ben.
    let user = 'BEN'
    const page = clientOf('ANA', { accessToken: async () => tokenOf(user) })
    await until(page, 'the end of the session', ({ connection }) => connection.status === 'signed_out')
    expect(page.getState()).toMatchObject({ conversations: [], connection: { error: { code: 'identity_mismatch' } } })
    const text = randomUUID()
    page.conversation(id).send(text)
    const { api } = page
    const answers = await Promise.all([
      api.sync(),
      api.getPage({ conversationId: id }),
      api.getMe(),
      api.postMessage({ conversationId: id, content: text, clientMessageId: randomUUID() }),
      api.editMessage(messageId, text),
      api.deleteMessage(messageId),
      api.addReaction(messageId, '👍'),
      api.removeReaction(messageId, '👍'),
      api.pin(messageId),
      api.updateConversation(id, { draft: text }),
      api.markConversationRead(id),
      api.setTyping(id, true),
      api.setPresence({ statusText: text }),
      api.endPresence(),
      api.setPreferences({ sound_enabled: false }),
      api.report(messageId, 'spam', text),
      api.block(idOf('ADA')),
      api.clearConversation(id),
    ])
    expect(new Set(answers.map(({ error }) => error?.code))).toEqual(new Set(['identity_mismatch']))
    expect(await stored()).toEqual(earlier)

    // The control: in Ana's own session, the same page sends the message that was written above.
    user = 'ANA'
    page.setToken(tokenOf(user))
    await until(ben, 'the message', () => texts(ben, id).includes(text))
    expect(ben.conversation(id).getTimeline().messages.at(-1)?.sender_id).toBe(idOf('ANA'))
  },
  PATIENCE_MS,
)

test(
  'without a socket, changes are polled',
  async () => {
    const [ana, ben] = [clientOf('ANA', { socket: false }), clientOf('BEN')]
    await until(ana, 'polling', ({ connection }) => connection.status === 'polling')
    await live(ben)
    const id = await chat(ana, ben, 'BEN')
    const text = randomUUID()
    ben.conversation(id).send(text)
    await until(ana, 'the message', () => texts(ana, id).includes(text))
  },
  PATIENCE_MS,
)
