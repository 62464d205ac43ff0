import { describe, expect, test } from 'vitest'
import { conversation, CONVERSATION, ME, message, PEER, rowOf, syncPage } from '../test/fixtures'
import { fakeRoutes, refusal, type FakeRoutes } from '../test/fake-routes'
import { FakeChannels, FakeLocks } from '../test/tabs'
import { createTestClient, FakeClock, memoryStorage, settled } from './testing'
import type { ChatClient, ChatClientOptions } from './chat-client'
import type { Environment } from './environment'
import type { Channel } from './tabs'
import type { ChatEvent } from './types'

function clientOf(
  routes: FakeRoutes,
  options: Partial<ChatClientOptions> = {},
  environment: Partial<Environment> = {},
) {
  const built = createTestClient(
    { userId: ME, accessToken: async () => 'token', fetch: routes.fetch, ...options },
    environment,
  )
  const events: ChatEvent[] = []
  built.client.listen((event) => events.push(event))
  const goLive = async () => {
    await answered()
    built.socket.accept()
    built.socket.goLive(ME)
    await answered()
  }
  return {
    ...built,
    events,
    goLive,
    room: built.client.conversation(CONVERSATION),
    timeline: () => built.client.conversation(CONVERSATION).getTimeline(),
  }
}

/** Waits until responses are processed. `Response.text` also needs turns of the event loop. */
async function answered(): Promise<void> {
  for (let turn = 0; turn < 8; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve))
    await settled()
  }
}

const history = (length: number) => Array.from({ length }, (_, index) => message({ seq: index + 1 }))

describe('starting', () => {
  test('twice opens one socket, and the last stop leaves nothing behind', async () => {
    const { client, clock, page, socket, goLive } = clientOf(fakeRoutes())
    const first = client.start()
    const second = client.start()
    await goLive()
    first()
    first()
    expect(client.getState().connection.status).toBe('live')
    expect(socket.opens).toBe(1)
    second()
    expect(client.getState().connection.status).toBe('idle')
    expect([clock.waiting, page.listenerCount, socket.isWanted]).toEqual([0, 0, false])
  })

  test('creating a client sends no request', async () => {
    const routes = fakeRoutes()
    const { clock, page } = clientOf(routes)
    await answered()
    expect([routes.seen, clock.waiting, page.listenerCount]).toEqual([[], 0, 0])
  })

  test('what the page already contains is not loaded again', async () => {
    const routes = fakeRoutes(history(3))
    const { client, goLive, room, timeline } = clientOf(routes, {
      initialState: {
        cursor: 'c7',
        conversations: [routes.row],
        pages: [{ conversationId: CONVERSATION, messages: routes.messages, hasOlder: false, hasNewer: false }],
      },
    })
    expect(client.getServerState()).toBe(client.getState())
    expect(timeline().messages).toHaveLength(3)
    client.start()
    room.open()
    await goLive()
    expect(routes.seen.filter((request) => request === 'GET /messages')).toEqual([])
    expect(client.getState().conversations).toHaveLength(1)
  })
})

test('the report that the user left the page outlives the page', async () => {
  const routes = fakeRoutes()
  const lasting: string[] = []
  const { client, page, goLive } = clientOf(routes, {
    fetch: (input, init) => {
      if (init?.keepalive) lasting.push(`${init.method} ${String(init.body)}`)
      return routes.fetch(input, init)
    },
  })
  client.start()
  await goLive()
  page.signal('leave')
  await answered()
  expect(lasting).toHaveLength(1)
  expect(lasting[0]).toMatch(/^POST .*"status":"offline"/)
})

describe('displaying', () => {
  test('loads the end, and older messages on request', async () => {
    const routes = fakeRoutes(history(120))
    const { client, goLive, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    expect(timeline().status).toBe('loading')
    await goLive()
    expect(timeline()).toMatchObject({ status: 'ready', hasOlder: true, hasNewer: false })
    expect(timeline().messages[0]?.seq).toBe(71)
    await Promise.all([room.loadOlder(), room.loadOlder()])
    expect(timeline().messages[0]?.seq).toBe(21)
    expect(routes.seen.filter((request) => request === 'GET /messages')).toHaveLength(2)
  })

  test('waits for the cursor before it loads a page, so that no change in between is missed', async () => {
    const routes = fakeRoutes(history(3))
    let answer: (response: Response) => void = () => {}
    routes.override = (request) => (request === 'GET /sync' ? new Promise((resolve) => (answer = resolve)) : undefined)
    const { client, room } = clientOf(routes)
    client.start()
    room.open()
    await answered()
    expect(routes.seen).not.toContain('GET /messages')
    answer(Response.json(syncPage({ conversations: [routes.row] })))
    await answered()
    expect(routes.seen).toContain('GET /messages')
  })

  test('starts at the first of many unread messages, below the unread line', async () => {
    const { client, goLive, room, timeline } = clientOf(fakeRoutes(history(120), { unread_count: 120 }))
    client.start()
    await goLive()
    room.open()
    await answered()
    expect(timeline()).toMatchObject({
      firstUnreadSeq: 1,
      hasNewer: true,
      jump: { target: { at: 'first_unread', seq: 1 } },
    })
  })

  test('a jump shows the messages around its target, and a repeated jump scrolls again', async () => {
    const { client, goLive, room, timeline } = clientOf(fakeRoutes(history(200)))
    client.start()
    room.open()
    await goLive()
    await room.jumpTo('m40')
    expect(timeline()).toMatchObject({
      hasOlder: true,
      hasNewer: true,
      jump: { target: { messageId: 'm40', seq: 40 } },
    })
    const last = timeline().messages.at(-1)!
    room.setVisible({ seq: last.seq, isAtEnd: true })
    await room.pinMessage('m40', true)
    expect(timeline().messages.at(-1)?.id).toBe(last.id)
    const first = timeline().jump!.number
    await room.jumpTo('m40')
    expect(timeline().jump!.number).toBeGreaterThan(first)
    await room.jumpToNewest()
    expect(timeline()).toMatchObject({ hasNewer: false, jump: { target: { at: 'newest' } } })
  })

  test('a jump to a message that no longer exists is reported and keeps the displayed messages', async () => {
    const { client, goLive, room, timeline, events } = clientOf(fakeRoutes(history(3)))
    client.start()
    room.open()
    await goLive()
    expect((await room.jumpTo('m99')).error?.status).toBe(404)
    expect(events).toContainEqual({ type: 'message_unavailable', conversationId: CONVERSATION, messageId: 'm99' })
    expect(timeline().messages).toHaveLength(3)
  })

  test('reports a conversation that does not exist as not found', async () => {
    const { client, goLive } = clientOf(fakeRoutes())
    client.start()
    client.conversation('another').open()
    await goLive()
    expect(client.conversation('another').getTimeline().status).toBe('not_found')
  })

  test('a cleared conversation returns with a new message', async () => {
    const routes = fakeRoutes(history(2))
    const { client, goLive, socket, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    await goLive()
    routes.nextSync = syncPage({ removed_conversation_ids: [CONVERSATION] })
    socket.goLive(ME)
    await answered()
    expect(timeline()).toMatchObject({ status: 'not_found', messages: [] })
    expect(client.getState().conversations).toEqual([])
    routes.messages = [message({ seq: 3 })]
    routes.nextSync = syncPage({ conversations: [conversation({ cleared_seq: 2 })], messages: routes.messages })
    socket.goLive(ME)
    await answered()
    expect(timeline().status).toBe('ready')
    expect(timeline().messages.map(({ id }) => id)).toEqual(['m3'])
  })

  test('everything is loaded again after the cursor has expired', async () => {
    const routes = fakeRoutes(history(2))
    const { client, goLive, socket, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    await goLive()
    routes.messages = history(4)
    routes.nextSync = refusal(410, 'resync_required')
    socket.goLive(ME)
    await answered()
    expect(timeline().messages).toHaveLength(4)
  })

  test('a first page that failed is loaded when the server responds again', async () => {
    const routes = fakeRoutes(history(2))
    const { client, goLive, socket, clock, room, timeline } = clientOf(routes)
    client.start()
    await goLive()
    routes.override = (request) => (request === 'GET /messages' ? refusal(503, 'database_unavailable') : undefined)
    room.open()
    await answered()
    expect(timeline().status).toBe('error')
    routes.override = () => undefined
    socket.lose()
    await clock.advance(1_000)
    await goLive()
    expect(timeline()).toMatchObject({ status: 'ready', error: null })
  })
})

describe('sending', () => {
  test('shows the message at once, and keeps its key when it is stored', async () => {
    const { client, goLive, room, timeline, events } = clientOf(fakeRoutes(history(1)))
    client.start()
    room.open()
    await goLive()
    const key = room.send('Hello')
    expect(timeline().messages.at(-1)).toMatchObject({ key, content: 'Hello', state: 'sending', isOwn: true })
    expect(client.getState().unsentCount).toBe(1)
    await answered()
    expect(timeline().messages.at(-1)).toMatchObject({ key, id: 'm2', state: 'sent' })
    expect(client.getState().unsentCount).toBe(0)
    expect(events).toMatchObject([{ type: 'message_sent', message: { key } }])
  })

  test('a refused message contains the error, and can be sent again', async () => {
    const routes = fakeRoutes()
    const { client, goLive, room, timeline, events } = clientOf(routes)
    routes.override = (request) => (request === 'POST /messages' ? refusal(403, 'not_allowed_recipient') : undefined)
    client.start()
    room.open()
    await goLive()
    const key = room.send('Hello')
    await answered()
    expect(timeline().messages[0]).toMatchObject({
      state: 'failed',
      canRetry: true,
      error: { code: 'not_allowed_recipient' },
    })
    expect(events).toMatchObject([{ type: 'message_failed', error: { status: 403 } }])
    routes.override = () => undefined
    room.retry(key)
    await answered()
    expect(timeline().messages).toMatchObject([{ key, state: 'sent' }])
  })

  test('messages that a closed page did not send are sent by the next page', async () => {
    const storage = memoryStorage()
    const routes = fakeRoutes()
    const first = clientOf(routes, {}, { loadStorage: async () => storage })
    routes.override = (request) =>
      request === 'POST /messages' ? Promise.reject(new TypeError('no network')) : undefined
    first.client.start()
    await first.goLive()
    const key = first.room.send('Hello')
    await answered()
    first.client.stop()
    routes.override = () => undefined
    const second = clientOf(routes, {}, { loadStorage: async () => storage })
    second.client.start()
    second.room.open()
    await second.goLive()
    expect(second.timeline().messages).toMatchObject([{ key, content: 'Hello', state: 'sent' }])
  })
})

test('typing and sending do not change the list, which shows the draft when the user leaves', async () => {
  const { client, goLive, room } = clientOf(fakeRoutes(history(3)))
  client.start()
  const leave = room.open()
  await goLive()
  const { conversations } = client.getState()
  room.setDraft('He')
  room.setDraft('Hello')
  expect(client.getState().conversations).toBe(conversations)
  room.send('Hello')
  expect(client.getState().conversations).toBe(conversations)
  room.setDraft('and')
  leave()
  expect(client.getState().conversations).toMatchObject([{ draft: 'and' }])
  room.open()
  expect(client.getState().conversations).toMatchObject([{ draft: null }])
})

describe('sending from the middle of history', () => {
  /**
   * Opens the conversation at the first of many unread messages. After `hold`, requests for pages
   * wait for `answer`.
   */
  async function inTheMiddle() {
    const routes = fakeRoutes(history(200), { unread_count: 160, last_read_seq: 40 })
    const built = clientOf(routes)
    const held: (() => void)[] = []
    let isHolding = false
    routes.override = (request) =>
      isHolding && request === 'GET /messages'
        ? new Promise((resolve) => held.push(() => resolve(undefined as never)))
        : undefined
    built.client.start()
    await built.goLive()
    built.room.open()
    await answered()
    expect(built.timeline()).toMatchObject({ hasNewer: true, jump: { target: { at: 'first_unread' } } })
    return {
      ...built,
      routes,
      hold: () => (isHolding = true),
      answer: async () => {
        await answered()
        isHolding = false
        // The last request is answered first.
        for (const resolve of held.splice(0).reverse()) {
          resolve()
          await answered()
        }
      },
      newest: () => built.timeline().messages.at(-1),
    }
  }

  test('shows the message at once at the end, which is loaded above it', async () => {
    const { room, timeline, newest, hold, answer } = await inTheMiddle()
    hold()
    const key = room.send('Hello')
    expect(timeline()).toMatchObject({
      status: 'ready',
      messages: [{ key, state: 'sending' }],
      hasOlder: true,
      hasNewer: false,
      isLoadingOlder: true,
      jump: { target: { at: 'newest' } },
    })
    await answered()
    expect(timeline()).toMatchObject({ messages: [{ key, state: 'sent' }], hasOlder: true })
    await answer()
    expect(timeline().messages.map(({ seq }) => seq)).toEqual(Array.from({ length: 51 }, (_, index) => 151 + index))
    expect(newest()).toMatchObject({ key })
  })

  test.each(['loadNewer', 'loadOlder'] as const)('a page that was requested before does not move the list: %s', async (load) => {
    const { room, timeline, newest, hold, answer } = await inTheMiddle()
    await room.jumpTo('m60')
    hold()
    void room[load]()
    const key = room.send('Hello')
    await answer()
    expect(newest()).toMatchObject({ key, seq: 201 })
    expect(timeline().hasNewer).toBe(false)
  })

  test('a jump that was requested before does not move the list', async () => {
    const { room, timeline, newest, hold, answer } = await inTheMiddle()
    hold()
    const jumped = room.jumpTo('m150')
    const key = room.send('Hello')
    await answer()
    expect((await jumped).error).toBeNull()
    expect(newest()).toMatchObject({ key })
    expect(timeline().jump?.target.at).toBe('newest')
  })

  test('opens a conversation that is still loading at its end', async () => {
    const routes = fakeRoutes(history(200), { unread_count: 160, last_read_seq: 40 })
    const { client, goLive, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    const key = room.send('Hello')
    expect(timeline().messages).toMatchObject([{ key }])
    await goLive()
    expect(timeline()).toMatchObject({ status: 'ready', hasOlder: true, hasNewer: false, jump: null })
    expect(timeline().messages.at(-1)).toMatchObject({ key, state: 'sent' })
  })

  test('opens the conversation at its end even while the first unread message is being loaded', async () => {
    const routes = fakeRoutes(history(200), { unread_count: 160, last_read_seq: 40 })
    const { client, goLive, room, timeline } = clientOf(routes)
    client.start()
    await goLive()
    let answer = (): void => {}
    routes.override = (request) =>
      request === 'GET /messages' ? new Promise((resolve) => (answer = () => resolve(undefined as never))) : undefined
    room.open()
    await answered()
    const key = room.send('Hello')
    routes.override = () => undefined
    answer()
    await answered()
    expect(timeline()).toMatchObject({ hasNewer: false, jump: null })
    expect(timeline().messages.at(-1)).toMatchObject({ key, state: 'sent' })
  })

  test('without a network the message waits at the end, and is never missing afterwards', async () => {
    const { routes, room, timeline, socket, clock, goLive } = await inTheMiddle()
    routes.override = () => Promise.reject(new TypeError('no network'))
    socket.lose()
    const key = room.send('Hello')
    await answered()
    expect(timeline()).toMatchObject({ messages: [{ key, state: 'pending' }], hasOlder: true })
    expect(timeline().pageError).not.toBeNull()
    const missing: unknown[] = []
    room.subscribe(() => {
      if (!timeline().messages.some((message) => message.key === key)) missing.push(timeline())
    })
    routes.override = () => undefined
    await clock.advance(1_000)
    await goLive()
    expect(timeline()).toMatchObject({ messages: [{ key, state: 'sent' }], hasOlder: true, pageError: null })
    await room.loadOlder()
    expect(timeline().messages.map(({ seq }) => seq)).toEqual(Array.from({ length: 51 }, (_, index) => 151 + index))
    expect(missing).toEqual([])
  })

  test('a reply quotes a message that is no longer displayed', async () => {
    const { room, timeline } = await inTheMiddle()
    const { id } = timeline().messages[0]!
    room.send('Yes', { replyToId: id })
    expect(timeline().messages).toMatchObject([{ content: 'Yes', reply_to: { id } }])
  })

  test('a message that another device of the user sent moves nothing', async () => {
    const { client, socket, timeline } = await inTheMiddle()
    const before = timeline()
    const sent = message({ seq: 201, sender_id: ME, client_message_id: 'elsewhere' })
    socket.channels
      .get(`user:${ME}`)
      ?.onInput({ type: 'row', table: 'user_messages', action: 'INSERT', row: { ...rowOf(sent) } })
    expect(client.getState().conversations[0]?.last_seq).toBe(201)
    expect(timeline().messages).toBe(before.messages)
    expect(timeline().jump).toBe(before.jump)
  })

  test('is reported even if the user has jumped elsewhere in the meantime', async () => {
    const { routes, room, timeline, events } = await inTheMiddle()
    const elsewhere = async (content: string) => {
      const key = room.send(content)
      await room.jumpTo('m60')
      await answered()
      expect(timeline().messages.some((message) => message.key === key)).toBe(false)
      return key
    }
    const sent = await elsewhere('Hello')
    routes.override = (request) => (request === 'POST /messages' ? refusal(403, 'not_allowed_recipient') : undefined)
    const failed = await elsewhere('Hello?')
    expect(events).toMatchObject([
      { type: 'message_sent', message: { key: sent, state: 'sent', isOwn: true } },
      { type: 'message_failed', message: { key: failed, state: 'failed', canRetry: true }, error: { status: 403 } },
    ])
  })
})

describe('going to the newest messages', () => {
  test('keeps what is displayed if they cannot be loaded, and goes there later', async () => {
    const routes = fakeRoutes(history(200))
    const { client, goLive, room, timeline } = clientOf(routes, {
      initialState: {
        cursor: 'c7',
        conversations: [routes.row],
        pages: [
          {
            conversationId: CONVERSATION,
            messages: routes.messages.slice(80, 130),
            hasOlder: true,
            hasNewer: true,
            around: 'm100',
          },
        ],
      },
    })
    client.start()
    room.open()
    await goLive()
    const before = timeline()
    expect(before).toMatchObject({ hasNewer: true })
    routes.override = (request) => (request === 'GET /messages' ? refusal(503, 'database_unavailable') : undefined)
    await room.jumpToNewest()
    expect(timeline().messages).toBe(before.messages)
    expect(timeline()).toMatchObject({ hasNewer: true, jump: null, pageError: { status: 503 } })
    routes.override = () => undefined
    await room.jumpToNewest()
    expect(timeline().messages.at(-1)?.seq).toBe(200)
    expect(timeline()).toMatchObject({ hasNewer: false, pageError: null, jump: { target: { at: 'newest' } } })
  })

  test('the failure of a page disappears when the server responds again', async () => {
    const routes = fakeRoutes(history(200))
    const { client, goLive, socket, clock, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    await goLive()
    routes.override = (request) => (request === 'GET /messages' ? refusal(503, 'database_unavailable') : undefined)
    await room.loadOlder()
    expect(timeline().pageError).not.toBeNull()
    routes.override = () => undefined
    socket.lose()
    await clock.advance(1_000)
    await goLive()
    expect(timeline().pageError).toBeNull()
  })

  test('of several jumps, the last one applies', async () => {
    const routes = fakeRoutes(history(200))
    const { client, goLive, room, timeline } = clientOf(routes)
    client.start()
    room.open()
    await goLive()
    const held: (() => void)[] = []
    routes.override = (request) =>
      request === 'GET /messages' ? new Promise((resolve) => held.push(() => resolve(undefined as never))) : undefined
    const first = room.jumpTo('m20')
    const second = room.jumpTo('m110')
    await answered()
    // The requests are answered in the opposite order.
    held[1]?.()
    await second
    held[0]?.()
    await first
    expect(timeline().jump).toMatchObject({ target: { messageId: 'm110' } })
    expect(timeline().messages.some(({ id }) => id === 'm110')).toBe(true)
  })
})

describe('conversations that were displayed recently', () => {
  test('are displayed at once by the next page, and updated from their cursor', async () => {
    const storage = memoryStorage()
    const routes = fakeRoutes(history(60))
    const first = clientOf(routes, { persist: 'recent' }, { loadStorage: async () => storage })
    first.client.start()
    first.room.open()
    await first.goLive()
    await first.clock.advance(2_000)
    first.client.stop()
    const requests = routes.seen.length
    const second = clientOf(routes, { persist: 'recent' }, { loadStorage: async () => storage })
    second.client.start()
    second.room.open()
    await settled()
    expect(second.client.getState().conversations).toHaveLength(1)
    expect(second.timeline()).toMatchObject({ status: 'ready', hasOlder: true, hasNewer: false })
    expect(second.timeline().messages).toHaveLength(50)
    routes.nextSync = syncPage({ cursor: 'c1', messages: [message({ seq: 61 })] })
    await second.goLive()
    expect(second.timeline().messages.at(-1)?.id).toBe('m61')
    expect(routes.cursors.at(-1)).toBe('c0')
    expect(routes.seen.slice(requests)).not.toContain('GET /messages')
  })

  test('are not stored unless the application chooses that', async () => {
    const storage = memoryStorage()
    const { client, goLive, room, clock } = clientOf(fakeRoutes(history(3)), {}, { loadStorage: async () => storage })
    client.start()
    room.open()
    await goLive()
    await clock.advance(10_000)
    expect(await storage.all('recent')).toEqual([])
  })
})

describe('changing', () => {
  async function ready(length = 1) {
    const routes = fakeRoutes(history(length))
    const built = clientOf(routes)
    built.client.start()
    built.room.open()
    await built.goLive()
    return { routes, ...built }
  }

  test('an edit is shown at once, and rolled back if it is refused', async () => {
    const { routes, room, timeline, events } = await ready()
    routes.override = (request) => (request.startsWith('PATCH') ? refusal(403, 'edit_window_passed') : undefined)
    const result = room.edit('m1', 'edited')
    expect(timeline().messages[0]).toMatchObject({ content: 'edited', isChanging: true })
    expect((await result).error?.code).toBe('edit_window_passed')
    expect(timeline().messages[0]).toMatchObject({ content: 'text m1', isChanging: false })
    expect(events).toMatchObject([{ type: 'change_failed', change: 'edit', messageId: 'm1' }])
  })

  test('an edit conflicts with a changed text, but not with a reaction', async () => {
    for (const isReworded of [true, false]) {
      const { routes, room, timeline } = await ready()
      routes.messages = [message({ seq: 1, rev: 5, ...(isReworded && { content: 'their text' }) })]
      const patches: unknown[] = []
      routes.override = (request, body) => {
        if (!request.startsWith('PATCH')) return undefined
        patches.push(body)
        return patches.length === 1
          ? refusal(412, 'stale_revision')
          : Response.json({ ...routes.messages[0], rev: 6, content: body['content'] })
      }
      const { error } = await room.edit('m1', 'my text')
      expect(error?.code).toBe(isReworded ? 'stale_revision' : undefined)
      expect(timeline().messages[0]?.content).toBe(isReworded ? 'their text' : 'my text')
    }
  })

  test('a deleted or hidden message disappears at once, and returns if the change is refused', async () => {
    const { routes, room, timeline } = await ready(2)
    let finish = () => {}
    routes.override = (request) =>
      request.startsWith('DELETE')
        ? new Promise((resolve) => (finish = () => resolve(refusal(500, 'internal'))))
        : undefined
    const deleted = room.remove('m1')
    expect(timeline().messages[0]).toMatchObject({ is_deleted: true, content: '' })
    await answered()
    finish()
    await deleted
    const hidden = room.remove('m1', { forMe: true })
    expect(timeline().messages.map(({ id }) => id)).toEqual(['m2'])
    await answered()
    finish()
    await hidden
    expect(timeline().messages.map(({ id, content }) => [id, content])).toEqual([
      ['m1', 'text m1'],
      ['m2', 'text m2'],
    ])
  })

  test('after quick taps on a reaction, the last one applies', async () => {
    const { routes, room, timeline } = await ready()
    void room.react('m1', '👍')
    expect(timeline().messages[0]?.reactions).toMatchObject([{ reaction: '👍', count: 1, me: true }])
    void room.react('m1', '👍')
    const last = room.react('m1', '👍')
    expect(timeline().messages[0]?.reactions).toMatchObject([{ count: 1, me: true }])
    await last
    expect(routes.seen.filter((request) => request.includes('reactions'))).toEqual([
      'PUT /messages/m1/reactions/%F0%9F%91%8D',
    ])
  })

  test('archiving is shown at once, and rolled back if it is refused', async () => {
    const { routes, client, events } = await ready()
    routes.override = (request) => (request.startsWith('PATCH') ? refusal(500, 'internal') : undefined)
    const result = client.archive(CONVERSATION, true)
    expect(client.getState().conversations[0]?.is_archived).toBe(true)
    await result
    expect(client.getState().conversations[0]?.is_archived).toBe(false)
    expect(events).toMatchObject([{ type: 'change_failed', change: 'archive' }])
  })

  test('reading reduces the unread count at once', async () => {
    const { routes, client, room, socket } = await ready()
    socket.channels
      .get(`user:${ME}`)!
      .onInput({ type: 'row', table: 'user_messages', action: 'INSERT', row: rowOf(message({ seq: 2 })) })
    socket.channels.get(`user:${ME}`)!.onInput({
      type: 'event',
      name: 'conversation.updated',
      payload: { conversation_id: CONVERSATION, unread_count: 1 },
    })
    expect(client.getState().unread.total).toBe(1)
    room.setVisible({ seq: 2, isAtEnd: true })
    expect(client.getState().unread.total).toBe(0)
    await answered()
    expect(routes.seen.filter((request) => request.endsWith('/read'))).toHaveLength(1)
    expect(client.getState().conversations[0]).toMatchObject({ unread_count: 0, last_read_seq: 2 })
  })

  test('a refused clearing and a refused status are reported', async () => {
    const { routes, client, events } = await ready()
    routes.override = (request) => (/^(DELETE|POST)/.test(request) ? refusal(429, 'rate_limited') : undefined)
    expect((await client.clear(CONVERSATION)).error?.code).toBe('rate_limited')
    expect((await client.setStatus('busy')).error?.code).toBe('rate_limited')
    expect(events).toMatchObject([
      { type: 'change_failed', change: 'clear', conversationId: CONVERSATION },
      { type: 'change_failed', change: 'presence', conversationId: null },
    ])
    expect(client.getState().conversations).toHaveLength(1)
  })
})

describe('what is marked as read', () => {
  /** Displays messages 151 to 200. The user has read up to message 40. */
  async function ready() {
    const routes = fakeRoutes(history(200), { last_read_seq: 40, unread_count: 20 })
    const marked: unknown[] = []
    routes.override = (request, body) => {
      if (request.endsWith('/read')) marked.push(body['message_id'])
      return undefined
    }
    const built = clientOf(routes)
    built.client.start()
    built.room.open()
    await built.goLive()
    await built.room.jumpToNewest()
    return { routes, marked, ...built, row: () => built.client.getState().conversations[0] }
  }

  test.each([
    ['the conversation', (client: ChatClient) => client.conversation(CONVERSATION).markRead()],
    ['all conversations', (client: ChatClient) => client.markAllRead()],
  ])('%s: every message, even while an earlier part is displayed', async (_, mark) => {
    const { client, room, marked, row } = await ready()
    await room.jumpTo('m20')
    const result = mark(client)
    expect(row()).toMatchObject({ unread_count: 0, last_read_seq: 200 })
    await result
    expect(marked).toEqual([undefined])
    expect(row()).toMatchObject({ unread_count: 0, last_read_seq: 200 })
  })

  test('messages that were visible before a jump, not the last one of the part that is displayed now', async () => {
    const { room, marked, clock, row } = await ready()
    room.setVisible({ seq: 160, isAtEnd: false })
    await clock.advance(1_000)
    room.setVisible({ seq: 170, isAtEnd: false })
    await clock.advance(999)
    room.setVisible({ seq: 180, isAtEnd: true })
    await room.jumpTo('m20')
    await clock.advance(1_000)
    await answered()
    expect(marked).toEqual(['m160', 'm200'])
    expect(row()).toMatchObject({ last_read_seq: 200 })
  })

  test('messages of an earlier part that were visible before a jump to the end', async () => {
    const { room, marked, clock, row } = await ready()
    await room.jumpTo('m60')
    room.setVisible({ seq: 50, isAtEnd: false })
    await clock.advance(1_000)
    room.setVisible({ seq: 60, isAtEnd: false })
    await room.jumpToNewest()
    await clock.advance(1_000)
    await answered()
    expect(marked).toEqual(['m50', 'm60'])
    expect(row()).toMatchObject({ last_read_seq: 60 })
  })

  test('nothing after the messages were discarded', async () => {
    const { routes, room, marked, clock, socket } = await ready()
    room.setVisible({ seq: 160, isAtEnd: false })
    await clock.advance(1_000)
    room.setVisible({ seq: 170, isAtEnd: false })
    await clock.advance(500)
    routes.nextSync = refusal(410, 'resync_required')
    routes.messages = []
    socket.goLive(ME)
    await answered()
    await clock.advance(1_000)
    await answered()
    expect(marked).toEqual(['m160'])
  })

  test('no messages that are loaded below the end of an earlier part', async () => {
    const { room, timeline, marked, clock } = await ready()
    await room.jumpTo('m60')
    const last = timeline().messages.at(-1)!
    room.setVisible({ seq: last.seq, isAtEnd: true })
    await room.loadNewer()
    expect(timeline().messages.at(-1)!.seq).toBeGreaterThan(last.seq)
    await clock.advance(5_000)
    await answered()
    expect(marked).toEqual([last.id])
  })
})

test('the unread line is not shown in a part after the first unread message', async () => {
  const { client, room, goLive, timeline } = clientOf(
    fakeRoutes(history(200), { last_read_seq: 40, unread_count: 160 }),
  )
  client.start()
  await goLive()
  const close = room.open({ at: 'm150' })
  await answered()
  expect(timeline()).toMatchObject({ firstUnreadSeq: null, jump: { target: { messageId: 'm150' } } })
  close()
  room.open({ at: 'm41' })
  await answered()
  expect(timeline().firstUnreadSeq).toBe(41)
})

describe('returning to a conversation with unread messages', () => {
  /**
   * Opens the conversation, runs `during`, and leaves. `arrive` then delivers the last `unread` of
   * 200 messages.
   */
  async function returned(unread: number, during: (room: Built['room'], routes: FakeRoutes) => unknown) {
    const routes = fakeRoutes(history(200 - unread), { last_read_seq: 200 - unread })
    const built = clientOf(routes)
    built.client.start()
    await built.goLive()
    const leave = built.room.open()
    await answered()
    await during(built.room, routes)
    leave()
    const arrive = (messages = history(200).slice(-unread)) => {
      routes.messages = history(200)
      const updated = {
        type: 'event',
        name: 'conversation.updated',
        payload: { conversation_id: CONVERSATION, unread_count: unread },
      } as const
      const { onInput } = built.socket.channels.get(`user:${ME}`)!
      onInput(updated)
      for (const row of messages) onInput({ type: 'row', table: 'user_messages', action: 'INSERT', row: rowOf(row) })
    }
    return { ...built, routes, arrive }
  }
  type Built = ReturnType<typeof clientOf>

  test.each([
    ['at the end', () => undefined],
    ['at an earlier part', (room: Built['room']) => room.jumpTo('m5')],
    ['at an earlier part, with the pages between loaded', async (room: Built['room']) => {
      await room.jumpTo('m5')
      for (let page = 0; page < 3; page += 1) await room.loadNewer()
      room.setVisible({ seq: 5, isAtEnd: false })
    }],
  ])('leads to the first of them, if the reader had left %s', async (_, during) => {
    for (const unread of [60, 3]) {
      const { room, timeline, arrive } = await returned(unread, during)
      arrive()
      room.open()
      await answered()
      const { firstUnreadSeq, jump, messages } = timeline()
      expect([firstUnreadSeq, jump?.target]).toEqual([201 - unread, { at: 'first_unread', seq: 201 - unread }])
      expect(messages.map(({ seq }) => seq)).toContain(201 - unread)
    }
  })

  test('begins without the line and the jump of the visit before', async () => {
    const { room, timeline, arrive } = await returned(60, () => undefined)
    arrive()
    const leave = room.open()
    await answered()
    leave()
    expect(timeline()).toMatchObject({ firstUnreadSeq: null, jump: null })
  })

  test('begins without the jump whose target was still loading when the user left', async () => {
    const { room, timeline, routes } = await returned(60, () => undefined)
    routes.messages = history(200)
    const leave = room.open()
    await answered()
    const jumped = room.jumpTo('m1')
    leave()
    await jumped
    expect(timeline()).toMatchObject({ firstUnreadSeq: null, jump: null })
  })

  test('leads to the first of them, even if their number arrives before them', async () => {
    const { room, timeline, arrive } = await returned(3, () => undefined)
    arrive([])
    room.open()
    await answered()
    expect(timeline()).toMatchObject({ firstUnreadSeq: 198, jump: { target: { at: 'first_unread', seq: 198 } } })
  })

  test('reads nothing before the list has moved to the first of them', async () => {
    const marked: unknown[] = []
    const { room, timeline, arrive, clock } = await returned(60, async (_, routes) => {
      routes.override = (request, body) => void (request.endsWith('/read') && marked.push(body['message_id']))
    })
    arrive([])
    room.open()
    room.setVisible({ seq: 140, isAtEnd: true })
    await clock.advance(5_000)
    expect(marked).toEqual([])
    await answered()
    expect(timeline().firstUnreadSeq).toBe(141)
    room.setVisible({ seq: 145, isAtEnd: false })
    await clock.advance(1_000)
    expect(marked).toEqual(['m145'])
  })
})

describe('events', () => {
  test('a live message is reported once, and a message from a catch-up is not', async () => {
    const routes = fakeRoutes()
    const { client, goLive, socket, events } = clientOf(routes)
    client.start()
    await goLive()
    const input = { type: 'row', table: 'user_messages', action: 'INSERT', row: rowOf(message({ seq: 1 })) } as const
    socket.channels.get(`user:${ME}`)!.onInput(input)
    socket.channels.get(`user:${ME}`)!.onInput(input)
    routes.nextSync = syncPage({
      conversations: [conversation({ last_seq: 2, rev: 2 })],
      messages: [message({ seq: 2 })],
    })
    socket.goLive(ME)
    await answered()
    expect(events).toMatchObject([
      {
        type: 'message_received',
        message: { id: 'm1', sender: { full_name: `Name of ${PEER}` } },
        conversation: { id: CONVERSATION },
      },
    ])
  })

  test('a token that cannot be refreshed signs out once, and unsent messages are kept', async () => {
    const routes = fakeRoutes()
    const { client, goLive, room, events } = clientOf(routes)
    client.start()
    room.open()
    await goLive()
    routes.override = () => refusal(401, 'token_expired')
    room.send('Hello')
    await answered()
    expect(client.getState()).toMatchObject({ connection: { status: 'signed_out' }, unsentCount: 1 })
    expect(events.filter(({ type }) => type === 'signed_out')).toHaveLength(1)
    routes.override = () => undefined
    client.setToken('token')
    await goLive()
    expect(client.getState()).toMatchObject({ connection: { status: 'live' }, unsentCount: 0 })
  })
})

describe('a session that now belongs to another user', () => {
  /** Creates routes that check the user that a request names, as the server does. */
  function shared(routes: FakeRoutes) {
    const session = { user: ME }
    const fetcher: typeof fetch = async (input, init) => {
      const named = new URL(String(input), 'http://test').searchParams.get('current_user_id')
      return named === null || named === session.user ? routes.fetch(input, init) : refusal(403, 'identity_mismatch')
    }
    return { session, fetcher }
  }

  test('receives no request of this user until it belongs to this user again', async () => {
    const routes = fakeRoutes(history(1))
    const { session, fetcher } = shared(routes)
    const { client, goLive, room, clock, events } = clientOf(routes, { fetch: fetcher })
    client.start()
    room.open()
    await goLive()
    session.user = PEER
    const before = routes.seen.length
    room.setDraft('a draft')
    room.send('Hello')
    await answered()
    void room.react('m1', '👍')
    await clock.advance(60_000)
    await answered()
    expect(routes.seen.slice(before)).toEqual([])
    expect(client.getState()).toMatchObject({
      connection: { status: 'signed_out', error: { code: 'identity_mismatch' } },
      unsentCount: 1,
    })
    expect(events.filter(({ type }) => type === 'signed_out')).toHaveLength(1)
    session.user = ME
    client.setToken('token')
    await goLive()
    expect(client.getState()).toMatchObject({ connection: { status: 'live' }, unsentCount: 0 })
    expect(routes.messages.at(-1)?.content).toBe('Hello')
  })

  test('shows no data of the other user', async () => {
    const routes = fakeRoutes(history(1))
    const { session, fetcher } = shared(routes)
    session.user = PEER
    const { client, room, timeline } = clientOf(routes, { fetch: fetcher })
    client.start()
    room.open()
    await answered()
    expect(client.getState()).toMatchObject({ connection: { status: 'signed_out' }, conversations: [] })
    expect(timeline().messages).toEqual([])
  })
})

describe('signing out', () => {
  async function ready(options: Partial<ChatClientOptions> = {}) {
    const storage = memoryStorage()
    const routes = fakeRoutes(history(2))
    const built = clientOf(routes, options, { loadStorage: async () => storage })
    built.client.start()
    built.room.open()
    await built.goLive()
    const stored = async () =>
      (await Promise.all((['outbox', 'drafts', 'recent'] as const).map((shelf) => storage.all(shelf)))).flat()
    return { ...built, routes, stored }
  }

  test('ends the presence, deletes all data in storage and memory, and closes the socket', async () => {
    const { client, room, routes, socket, clock, stored, timeline, events } = await ready({ persist: 'recent' })
    room.setDraft('unsent')
    await clock.advance(5_000)
    expect(await stored()).not.toEqual([])
    await client.signOut()
    await clock.advance(60_000)
    expect(routes.seen).toContain('DELETE /presence')
    expect(await stored()).toEqual([])
    expect(socket.isWanted).toBe(false)
    expect(client.getState()).toMatchObject({
      me: { full_name: null, email: null },
      conversations: [],
      presence: {},
      preferences: null,
      config: null,
      unread: { total: 0 },
    })
    expect(Object.keys(client.getState().people)).toEqual([ME])
    expect([timeline().messages, room.getDraft()]).toEqual([[], ''])
    expect(JSON.stringify(client.getState())).not.toMatch(/text m|Name of/)
    expect(events.at(-1)).toEqual({ type: 'forgotten' })
  })

  test('does not wait for the server', async () => {
    const { client, room, routes, stored } = await ready()
    routes.override = (request) => (request === 'DELETE /presence' ? new Promise(() => {}) : undefined)
    room.setDraft('unsent')
    void client.signOut()
    await answered()
    expect(routes.seen).toContain('DELETE /presence')
    expect(await stored()).toEqual([])
  })

  test.each([
    ['a refusal', () => refusal(422, 'validation_failed')],
    ['a limit', () => refusal(429, 'rate_limited')],
    ['a message', () => Response.json(message({ seq: 3, sender_id: ME, content: 'in flight' }), { status: 201 })],
  ])('while a message is in flight: %s is neither stored nor shown', async (_, response) => {
    const { client, room, routes, stored, timeline, events } = await ready()
    let answer: (response: Response) => void = () => {}
    routes.override = (request) =>
      request === 'POST /messages' ? new Promise((resolve) => (answer = resolve)) : undefined
    room.send('in flight')
    await answered()
    await client.signOut()
    answer(response())
    await answered()
    expect(await stored()).toEqual([])
    expect([client.getState().unsentCount, timeline().messages]).toEqual([0, []])
    expect(events).toEqual([{ type: 'forgotten' }])
  })

  test('while everything is being loaded: no response is shown', async () => {
    const routes = fakeRoutes(history(2))
    const answers: (() => void)[] = []
    const fetcher: typeof fetch = async (input, init) => {
      const response = await routes.fetch(input, init)
      if (init?.method === 'DELETE') return response
      return new Promise((resolve) => answers.push(() => resolve(response)))
    }
    const { client, room, timeline } = clientOf(routes, { fetch: fetcher })
    client.start()
    room.open()
    await answered()
    await client.signOut()
    for (const give of answers) give()
    await answered()
    expect(answers.length).toBeGreaterThan(3)
    expect(client.getState()).toMatchObject({ conversations: [], config: null, preferences: null })
    expect(timeline().messages).toEqual([])
  })

  test('what the user writes afterwards is not stored until the client is started again', async () => {
    const { client, room, routes, goLive, stored, timeline } = await ready()
    await client.signOut()
    room.setDraft('afterwards')
    room.send('afterwards')
    await answered()
    expect(await stored()).toEqual([])
    routes.override = (request) => (request === 'POST /messages' ? refusal(503, 'database_unavailable') : undefined)
    client.start()
    await goLive()
    expect(client.getState().conversations).toHaveLength(1)
    expect(timeline().messages.slice(0, 2)).toMatchObject([{ id: 'm1' }, { id: 'm2' }])
    room.send('in the next session')
    await answered()
    expect(await stored()).toMatchObject([[expect.any(String), { content: 'in the next session' }]])
  })
})

// Thousands of messages take seconds, and longer on a busy machine.
const MINUTE = { timeout: 60_000 }

test('an hour of messages and changing conversations leaves nothing behind', MINUTE, async () => {
  const { client, clock, page, socket, goLive, room, timeline } = clientOf(fakeRoutes(history(1)))
  client.start()
  room.open()
  await goLive()
  const held = () => [clock.waiting, page.listenerCount, socket.channels.size]
  const before = held()
  const channel = socket.channels.get(`user:${ME}`)!
  for (let second = 1; second <= 3_600; second += 1) {
    const typing = { conversation_id: CONVERSATION, user_id: PEER, is_typing: true, expires_in_ms: 6_000 }
    channel.onInput({ type: 'event', name: 'typing', payload: typing })
    const row = rowOf(message({ seq: second + 1 }))
    channel.onInput({ type: 'row', table: 'user_messages', action: 'INSERT', row })
    if (second % 60 === 0) {
      const close = client.conversation(`other${second}`).open()
      await clock.advance(1_000)
      close()
    }
  }
  await clock.advance(10_000)
  await answered()
  expect(held()).toEqual(before)
  expect(timeline().messages.length).toBeLessThanOrEqual(2_100)
  expect(Object.keys(client.getState().timelines).length).toBeLessThanOrEqual(6)
})

describe('several tabs', () => {
  function browser() {
    const [locks, channels, clock, storage] = [new FakeLocks(), new FakeChannels(), new FakeClock(), memoryStorage()]
    const routes = fakeRoutes(history(1))
    const open = () => {
      let channel: Channel | undefined
      const openChannel = () => (channel = channels.open())
      const built = clientOf(routes, {}, { locks, clock, loadStorage: async () => storage, openChannel })
      return { ...built, frozen: () => channels.freeze(channel!) }
    }
    return { routes, clock, storage, open }
  }

  test('one socket serves all tabs', async () => {
    const { open } = browser()
    const [first, second] = [open(), open()]
    first.client.start()
    await first.goLive()
    second.client.start()
    second.room.open()
    await answered()
    expect(second.socket.opens).toBe(0)
    expect(second.client.getState()).toMatchObject({
      isLeader: false,
      connection: { status: 'live' },
      conversations: [{ id: CONVERSATION }],
    })
    expect(second.timeline().messages).toHaveLength(1)
    first.socket.channels
      .get(`user:${ME}`)!
      .onInput({ type: 'row', table: 'user_messages', action: 'INSERT', row: rowOf(message({ seq: 2 })) })
    await answered()
    expect(second.timeline().messages).toHaveLength(2)
    expect(second.events).toMatchObject([{ type: 'message_received' }])
  })

  test('a following tab sends its own messages, and requests missing data from the leading tab', async () => {
    const { open, clock, routes } = browser()
    const [first, second] = [open(), open()]
    first.client.start()
    await first.goLive()
    second.client.start()
    second.room.open()
    await answered()
    second.room.send('Hello')
    await answered()
    expect(second.timeline().messages.at(-1)).toMatchObject({ content: 'Hello', state: 'sent' })
    const reacted = {
      ...routes.messages[0]!,
      rev: 9,
      reactions: [{ reaction: '👍', emoji: '👍', count: 1, me: false, user_ids: [PEER] }],
    }
    routes.nextSync = syncPage({ cursor: 'c1', messages: [reacted] })
    first.socket.channels
      .get(`user:${ME}`)!
      .onInput({ type: 'row', table: 'user_messages', action: 'UPDATE', row: rowOf(reacted) })
    await answered()
    await clock.advance(100)
    await answered()
    expect(second.timeline().messages[0]?.reactions).toMatchObject([{ count: 1 }])
  })

  test('when the tab with the socket is closed, the next one continues from its cursor', async () => {
    const { open, routes } = browser()
    const [first, second] = [open(), open()]
    first.client.start()
    await first.goLive()
    second.client.start()
    second.room.open()
    await answered()
    routes.nextSync = syncPage({ cursor: 'c5' })
    first.socket.goLive(ME)
    await answered()
    first.client.stop()
    await answered()
    expect(second.client.getState().isLeader).toBe(true)
    routes.nextSync = syncPage({ cursor: 'c1', messages: [message({ seq: 2 })] })
    await second.goLive()
    expect(second.client.getState().connection.status).toBe('live')
    expect(second.timeline().messages).toHaveLength(2)
    expect(routes.cursors).toEqual([null, 'c0', 'c0', 'c5'])
  })

  test('a new tab waits at most three seconds for a frozen leading tab', async () => {
    const { open, clock } = browser()
    const first = open()
    first.client.start()
    await answered()
    // A frozen tab keeps its lock but receives nothing.
    first.frozen()
    const second = open()
    second.client.start()
    second.room.open()
    await clock.advance(3_000)
    await answered()
    expect(second.client.getState().isLeader).toBe(false)
    expect(second.timeline().messages).toHaveLength(1)
  })

  test('signing out in one tab signs out all tabs and deletes their data', async () => {
    for (const [at, other] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const { open, storage } = browser()
      const tabs = [open(), open()]
      tabs[0]!.client.start()
      await tabs[0]!.goLive()
      tabs[1]!.client.start()
      for (const { room } of tabs) room.open()
      await answered()
      expect(tabs[other]!.timeline().messages).toHaveLength(1)
      tabs[other]!.room.setDraft('a draft')
      await tabs[at]!.client.signOut()
      await answered()
      expect(tabs[0]!.socket.isWanted).toBe(false)
      expect(tabs[other]!.events).toMatchObject([{ type: 'forgotten' }, { type: 'signed_out' }])
      for (const { client, timeline, room } of tabs) {
        expect(client.getState()).toMatchObject({ conversations: [], preferences: null, config: null })
        expect([timeline().messages, room.getDraft()]).toEqual([[], ''])
      }
      tabs[other]!.room.setDraft('afterwards')
      tabs[other]!.room.send('afterwards')
      await answered()
      expect([await storage.all('drafts'), await storage.all('outbox')]).toEqual([[], []])
    }
  })

  test('a following tab that finds another user\'s session signs out all tabs', async () => {
    const { open, routes, clock } = browser()
    const [first, second] = [open(), open()]
    first.client.start()
    await first.goLive()
    second.client.start()
    await answered()
    routes.override = () => refusal(403, 'identity_mismatch')
    second.room.send('Hello')
    await answered()
    await clock.advance(1_000)
    await answered()
    for (const { client } of [first, second])
      expect(client.getState().connection).toMatchObject({ status: 'signed_out', error: { code: 'identity_mismatch' } })
    expect(second.client.getState().unsentCount).toBe(1)
  })
})
