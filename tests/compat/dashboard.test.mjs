// Uses the routes and the socket as a Next.js dashboard does, with the files of docs/nextjs.md.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { createServerClient } from '@supabase/ssr'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { call, clientFor, database, Inbox, mint, startServer, subscribe, Wire } from './support.mjs'

const { CookieAuthStorageAdapter } = createRequire(import.meta.url)('@supabase/auth-helpers-shared')

// In browsers, WebSocket is built in.
globalThis.WebSocket ??= WebSocket

let server
let db
let UserChatAPI
let ConversationFeed
let connectChat
const closing = []

const id = (name) => server.env[`USER_ID_${name}`]
const token = (name) => server.env[`USER_TOKEN_${name}`]

before(async () => {
  const here = (path) => new URL(path, import.meta.url)
  execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc').pathname, '-p', here('.').pathname], { stdio: 'inherit' })
  ;({ UserChatAPI } = await import('./build/user-chat-api.js'))
  ;({ ConversationFeed } = await import('./build/conversation-feed.js'))
  ;({ connectChat } = await import('./build/chat-socket.js'))
  server = await startServer()
  db = await database(server)
})

after(async () => {
  for (const close of closing) await close()
  await db.end()
  assert.equal(await server.stop(), 0)
})

/** Creates the API class, authenticated with a user's token. */
const apiOf = (name) => new UserChatAPI({ baseUrl: server.base, accessToken: async () => token(name) })

/** Returns the result of a method, which must not be an error. */
async function ok(answer) {
  const { data, error } = await answer
  assert.equal(error, null)
  return data
}

/** Returns the error of a refused method. */
async function refused(answer, status, code) {
  const { data, error } = await answer
  assert.equal(data, null)
  assert.deepEqual([error.status, error.code], [status, code], error.message)
  return error
}

async function socketOf(name, address = server) {
  const client = await clientFor({ ...server, url: address.url }, token(name))
  closing.push(() => client.removeAllChannels())
  return client
}

/** Subscribes like dashboards, and collects events. */
async function watch(client, name, binding) {
  const changes = new Inbox()
  const channel = client.channel(name).on('postgres_changes', { schema: 'public', ...binding }, changes.push)
  const { system } = await subscribe(channel)
  await system.find(({ status }) => status === 'ok', 'changes to be live')
  return changes
}

const newMessages = (client, conversation) =>
  watch(client, `conversation-${conversation}`, {
    event: 'INSERT',
    table: 'user_messages',
    filter: `conversation_id=eq.${conversation}`,
  })

// Starts a stand-in for the project's auth service. It has the routes that clients need: reading
// the user of a token, and refreshing a token.
async function startAuth(sessionOf) {
  const auth = createServer((request, response) => {
    const found = request.url.startsWith('/auth/v1/user') ? sessionOf().user : sessionOf()
    request.resume().on('end', () => {
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(found))
    })
  })
  auth.listen(0, '127.0.0.1')
  await once(auth, 'listening')
  closing.push(() => auth.close() && auth.closeAllConnections())
  return `http://127.0.0.1:${auth.address().port}`
}

function session(name, accessToken = token(name)) {
  // The user metadata is long enough that the session exceeds the limit for one cookie.
  const user = { id: id(name), aud: 'authenticated', user_metadata: { about: 'x'.repeat(4_000) } }
  const expires_at = Math.floor(Date.now() / 1000) + 3_600
  return { access_token: accessToken, refresh_token: randomUUID(), token_type: 'bearer', expires_in: 3_600, expires_at, user }
}

/** Returns the `Cookie` header of a browser with these cookies. */
const header = (jar) => [...jar].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('; ')

/** Returns the cookies of a browser that has signed in through `@supabase/ssr`. */
async function jarOfSsr(name, { encode, ...options } = {}) {
  const jar = new Map()
  const client = createServerClient(await startAuth(() => session(name)), server.env.ANON_KEY, {
    ...options,
    cookies: {
      encode,
      getAll: () => [...jar].map(([name, value]) => ({ name, value })),
      setAll: (cookies) => cookies.forEach(({ name, value }) => jar.set(name, value)),
    },
  })
  const { error } = await client.auth.setSession(session(name))
  assert.equal(error, null)
  return jar
}

/** Returns the `Cookie` header of a browser that has signed in through `@supabase/ssr`. */
async function cookieOfSsr(name) {
  const jar = await jarOfSsr(name)
  assert.ok(jar.size > 1, `in pieces: ${[...jar.keys()]}`)
  return header(jar)
}

/** Returns the same header for the older auth-helpers. */
async function cookieOfHelpers(name) {
  const jar = new Map()
  const storage = new (class extends CookieAuthStorageAdapter {
    getCookie = (key) => jar.get(key)
    setCookie = (key, value) => jar.set(key, value)
    deleteCookie = (key) => jar.delete(key)
  })()
  storage.setItem('sb-project-auth-token', JSON.stringify(session(name)))
  return header(jar)
}

// Returns a `fetch` that works like one from a page of the same site, with its cookies and the
// `Sec-Fetch` headers of browsers.
const fetchWith = (cookie, headers = { 'sec-fetch-site': 'same-origin' }) => (url, init) =>
  fetch(url, { ...init, headers: { ...init.headers, ...headers, cookie } })

const IDENTITIES = {
  'a bearer token': async (name) => apiOf(name),
  'the cookie of @supabase/ssr': async (name) => new UserChatAPI({ baseUrl: server.base, fetch: fetchWith(await cookieOfSsr(name)) }),
  'the cookie of auth-helpers': async (name) => new UserChatAPI({ baseUrl: server.base, fetch: fetchWith(await cookieOfHelpers(name)) }),
}

test('every form of the cookies of @supabase/ssr identifies the user', async () => {
  const forms = {
    'base64url': {},
    'raw': { cookieEncoding: 'raw' },
    'tokens only': { encode: 'tokens-only' },
    'the name of the former URL': { cookieOptions: { name: 'sb-former-auth-token' } },
  }
  for (const [form, options] of Object.entries(forms)) {
    const jar = await jarOfSsr('ANA', options)
    const names = [...jar.keys()]
    assert.ok(names.every((name) => name.startsWith(options.cookieOptions?.name ?? 'sb-127-auth-token')), `${names}`)
    const read = (cookie) => ok(new UserChatAPI({ baseUrl: server.base, fetch: fetchWith(cookie) }).getConversations())
    await read(header(jar))
    // Adds a chunk that remains of a longer session. Its number follows a gap, so it does not
    // count.
    await read(`${header(jar)}; sb-127-auth-token.${names.length + 1}=stale`)
  }
})

for (const [kind, apiBy] of Object.entries(IDENTITIES)) {
  test(`every method of UserChatAPI works with ${kind}`, async () => {
    const [ana, ben, zoe] = await Promise.all(['ANA', 'BEN', 'ZOE'].map(apiBy))

    const found = await ok(ana.searchUsers('be', id('ANA'), 'whatever team'))
    assert.deepEqual(found.map(({ id, full_name }) => [id, full_name]), [[id('BEN'), 'Ben Brandt']])
    assert.deepEqual(await ok(ana.searchUsers('zo', id('ANA'), null)), [])
    assert.deepEqual(await ok(ana.searchUsers('b', id('ANA'))), [])

    const opened = await ok(ana.getOrCreateConversation(id('BEN'), id('ANA')))
    assert.equal((await ok(ben.getOrCreateConversation(id('ANA'), id('BEN')))).id, opened.id)

    const first = await ok(ana.sendMessage(opened.id, id('ANA'), `one, ${kind}`))
    const second = await ok(ana.sendMessage(opened.id, id('ANA'), `two, ${kind}`, 'text'))
    assert.equal(first.sender.full_name, 'Ana Alvarez')
    assert.deepEqual(first.read_by, [])

    const [listed] = await ok(ben.getConversations(id('BEN')))
    assert.deepEqual([listed.id, listed.unread_count, listed.last_message.content], [opened.id, 2, `two, ${kind}`])
    assert.equal(listed.other_user.full_name, 'Ana Alvarez')
    assert.deepEqual([listed.participant_1.full_name, listed.participant_2.full_name], ['Ana Alvarez', 'Ben Brandt'])
    assert.equal((await ok(ben.getUnreadCount())).by_conversation[opened.id], 2)

    const history = await ok(ben.getMessages(opened.id))
    assert.deepEqual(history.slice(-2).map(({ content }) => content), [`one, ${kind}`, `two, ${kind}`], 'oldest first')
    assert.deepEqual((await ok(ben.getMessages(opened.id, 1, 1))).map(({ id }) => id), [first.id], 'offset counts from the newest')

    assert.equal((await ok(ben.markAsRead([first.id, second.id], id('BEN')))).updated, 2)
    assert.equal((await ok(ben.getUnreadCount())).total, 0)
    for (const message of (await ok(ana.getMessages(opened.id))).slice(-2)) assert.deepEqual(message.read_by, [id('BEN')])

    assert.equal((await ok(ben.updatePresence(id('BEN'), 'away', '/reports'))).status, 'away')
    assert.equal(await ok(ben.updateTypingStatus(id('BEN'), id('ANA'))), null)
    assert.equal(await ok(ben.updateTypingStatus(id('BEN'), null)), null)

    // A user of another team can find, open, read and send nothing, and no user can act on behalf
    // of another.
    const refusal = await refused(zoe.getOrCreateConversation(id('ZOE'), id('ANA')), 403, 'not_allowed_recipient')
    assert.equal(refusal.message, 'You cannot message this person')
    await refused(zoe.getOrCreateConversation(id('ANA'), id('BEN')), 403, 'identity_mismatch')
    assert.deepEqual(await ok(zoe.getConversations(id('ZOE'))), [])
    assert.deepEqual(await ok(zoe.searchUsers('ana', id('ZOE'), 'the team of Ana')), [])
    await refused(zoe.getMessages(opened.id), 404, 'not_found')
    await refused(zoe.sendMessage(opened.id, id('ZOE'), 'x'), 404, 'not_found')
    await refused(zoe.sendMessage(opened.id, id('ANA'), 'x'), 403, 'identity_mismatch')
    assert.equal((await ok(zoe.markAsRead([first.id], id('ZOE')))).updated, 0)
    await refused(zoe.markAsRead([first.id], id('ANA')), 403, 'identity_mismatch')
    await refused(zoe.updatePresence(id('ANA'), 'online'), 403, 'identity_mismatch')
    await refused(zoe.getConversations(id('ANA')), 403, 'identity_mismatch')
    await refused(zoe.searchUsers('be', id('ANA')), 403, 'identity_mismatch')
  })
}

test('a write by cookie from another site is refused, and so are requests without a valid session', async () => {
  const cookie = await cookieOfSsr('ANA')
  const foreign = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }
  const lured = new UserChatAPI({ baseUrl: server.base, fetch: fetchWith(cookie, foreign) })
  await refused(lured.updatePresence(id('ANA'), 'online'), 403, 'forbidden')
  const nobody = new UserChatAPI({ baseUrl: server.base })
  assert.equal((await refused(nobody.getConversations(id('ANA')), 401, 'unauthorized')).message, 'Unauthorized')
  const late = new UserChatAPI({ baseUrl: server.base, accessToken: async () => mint(server, { sub: id('ANA'), exp: 1 }) })
  await refused(late.getConversations(id('ANA')), 401, 'token_expired')
  const away = new UserChatAPI({ baseUrl: 'http://127.0.0.1:1' })
  await refused(away.getConversations(id('ANA')), 0, 'network')
})

test('the optimistic message and the one from the socket are merged', async () => {
  const [ana, ben] = ['ANA', 'BEN'].map(apiOf)
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  const [anas, bens, zoes] = await Promise.all(['ANA', 'BEN', 'ZOE'].map((name) => socketOf(name)))
  const [atAna, atBen, atZoe] = await Promise.all([anas, bens, zoes].map((client) => newMessages(client, conversation)))

  const clientMessageId = randomUUID()
  const shown = [{ id: clientMessageId, client_message_id: clientMessageId, content: 'Hello Ben' }]
  const sent = await ok(ana.sendMessage(conversation, id('ANA'), 'Hello Ben', 'text', clientMessageId))
  const again = await ok(ana.sendMessage(conversation, id('ANA'), 'Hello Ben', 'text', clientMessageId))
  assert.equal(again.id, sent.id, 'a retry is the same message')
  const other = await refused(ana.sendMessage(conversation, id('ANA'), 'Other', 'text', clientMessageId), 409, 'client_message_id_conflict')
  assert.equal(typeof other.message, 'string')

  const echo = await atAna.find(({ new: row }) => row.id === sent.id, 'her own message')
  const place = shown.findIndex(({ client_message_id }) => client_message_id === echo.new.client_message_id)
  shown[place === -1 ? shown.length : place] = echo.new
  assert.deepEqual(shown.map(({ id }) => id), [sent.id])

  const arrived = await atBen.find(({ new: row }) => row.id === sent.id, 'the message at Ben')
  assert.deepEqual([arrived.new.sender_id, arrived.new.content], [id('ANA'), 'Hello Ben'])
  const reply = await ok(ben.sendMessage(conversation, id('BEN'), 'Hello Ana'))
  for (const inbox of [atAna, atBen]) await inbox.find(({ new: row }) => row.id === reply.id, 'the answer')
  assert.deepEqual(atBen.items.map(({ new: row }) => row.id), [sent.id, reply.id], 'each once, in order')

  // Zoe's own presence is committed after the messages. It shows that they were not delivered to
  // her.
  const zoesOwn = await watch(zoes, 'user-presence', { event: '*', table: 'user_presence' })
  await ok(apiOf('ZOE').updatePresence(id('ZOE'), 'online'))
  await zoesOwn.find(({ new: row }) => row.user_id === id('ZOE'), 'her own presence')
  assert.deepEqual(atZoe.items, [])
})

test('a deletion does not disclose the deleted content to any socket', async () => {
  const ana = apiOf('ANA')
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  const messages = await watch(await socketOf('BEN'), 'all-messages', { event: '*', table: 'user_messages' })
  const { id: doomed } = await ok(ana.sendMessage(conversation, id('ANA'), 'a secret'))
  await call(server, token('ANA'), 'DELETE', `/messages/${doomed}`)
  const deletion = await messages.find(({ new: row }) => row.id === doomed && row.is_deleted, 'the deletion')
  assert.equal(deletion.eventType, 'UPDATE')
  assert.ok(!JSON.stringify(deletion).includes('a secret'), JSON.stringify(deletion))
})

test('typing and presence in the table, for dashboards that subscribe to it', async () => {
  await db.query(`update chat.config set value = 'true' where key in ('typing_in_table', 'share_current_page')`)
  // Ada is the only user without a socket here. A socket would also report presence for her.
  const ada = apiOf('ADA')
  await ok(ada.getOrCreateConversation(id('ADA'), id('ANA')))
  await ok(ada.updatePresence(id('ADA'), 'online', '/messages'))
  const [anas, zoes] = await Promise.all(['ANA', 'ZOE'].map((name) => socketOf(name)))
  const typing = await watch(anas, 'typing-indicators', { event: 'UPDATE', table: 'user_presence' })
  const presence = await watch(anas, 'user-presence', { event: '*', table: 'user_presence' })
  const atZoe = await watch(zoes, 'user-presence', { event: '*', table: 'user_presence' })

  await ok(ada.updateTypingStatus(id('ADA'), id('ANA')))
  const started = await typing.find(({ new: row }) => row.is_typing_to === id('ANA'), 'Ada to type')
  assert.equal(started.new.user_id, id('ADA'))
  assert.ok(started.new.typing_started_at)
  await ok(ada.updateTypingStatus(id('ADA'), null))
  await typing.until((items) => items.at(-1).new.is_typing_to === null && items.at(-1).new.user_id === id('ADA'), 'Ada to stop typing')

  for (const status of ['away', 'offline', 'online']) {
    await ok(ada.updatePresence(id('ADA'), status, '/elsewhere'))
    // The inbox also contains Ana’s own row, because her sockets have only just opened.
    const adas = (items) => items.map(({ new: row }) => row).filter((row) => row.user_id === id('ADA'))
    const changed = await presence.until((items) => adas(items).at(-1)?.status === status, `Ada to be ${status}`)
    assert.equal(adas(changed).at(-1).current_page, null, 'the current page is not disclosed to other users')
  }
  await ok(apiOf('ZOE').updatePresence(id('ZOE'), 'away'))
  await atZoe.until((items) => items.at(-1)?.new.status === 'away', 'her own presence')
  assert.deepEqual([...new Set(atZoe.items.map(({ new: row }) => row.user_id))], [id('ZOE')])
  await db.query(`update chat.config set value = 'false' where key in ('typing_in_table', 'share_current_page')`)
})

test('a token refreshed in time loses nothing; an expired token ends the channel but not the socket', async () => {
  const ana = apiOf('ANA')
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  const brief = mint(server, { sub: id('BEN'), exp: Math.floor(Date.now() / 1000) + 5 })
  const listening = async (current) => {
    const client = await clientFor(server, current)
    closing.push(() => client.removeAllChannels())
    const changes = new Inbox()
    const channel = client.channel(`conversation-${conversation}`).on(
      'postgres_changes',
      { event: 'INSERT', schema: 'public', table: 'user_messages', filter: `conversation_id=eq.${conversation}` },
      changes.push,
    )
    return { client, changes, ...(await subscribe(channel)) }
  }
  let current = brief
  const [renewed, forgotten] = await Promise.all([listening(() => current), listening(brief)])
  await forgotten.system.find(({ status }) => status === 'ok', 'changes to be live')

  // Messages are sent until the old token has expired: before, during and after the refresh.
  const sent = []
  let isOver = false
  const writing = (async () => {
    while (!isOver) sent.push((await ok(ana.sendMessage(conversation, id('ANA'), `n ${sent.length}`))).id)
  })()
  await renewed.system.find(({ message }) => message.startsWith('Token expires in'), 'the warning')
  current = token('BEN')
  await renewed.client.realtime.setAuth()
  const told = await forgotten.system.find(({ status }) => status === 'error', 'the end of the token')
  assert.match(told.message, /^Token has expired \d+ seconds ago$/)
  await forgotten.statuses.find(({ status }) => status === 'CLOSED', 'CLOSED')
  isOver = true
  await writing
  const last = await ok(ana.sendMessage(conversation, id('ANA'), 'after it'))
  sent.push(last.id)

  await renewed.changes.find(({ new: row }) => row.id === last.id, 'the last message')
  assert.deepEqual(renewed.changes.items.map(({ new: row }) => row.id), sent, 'each once, in order')
  assert.deepEqual(renewed.statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
  assert.equal(forgotten.client.realtime.isConnected(), true, 'the socket stays')
  assert.ok(forgotten.changes.items.every(({ new: row }) => row.id !== last.id))
})

/** Mounts a feed of Ben and collects all its states. */
async function feedOf(chat, api, conversation) {
  const feed = new ConversationFeed(api, chat, conversation, id('BEN'))
  const states = new Inbox()
  feed.subscribe(() => states.push(feed.getState()))
  feed.start()
  closing.push(() => feed.stop())
  const until = (isReached, what) => states.until(() => isReached(feed.getState()), what)
  await until(({ status }) => status === 'live', 'the feed to be live')
  return { feed, until }
}

test('the feed of the guide catches up after its socket was disconnected', async () => {
  const ana = apiOf('ANA')
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  const wire = await Wire.to(server.url)
  closing.push(() => wire.close())
  const ben = apiOf('BEN')
  const { feed, until } = await feedOf(await socketOf('BEN', wire), ben, conversation)
  const contents = ({ messages }) => messages.map(({ content }) => content)

  const early = await ok(ana.sendMessage(conversation, id('ANA'), 'while he looks'))
  await until((state) => contents(state).includes('while he looks'), 'the message')
  await feed.send('his own')
  const own = feed.getState().messages.filter(({ content }) => content === 'his own')
  assert.deepEqual(own.map(({ state }) => state), [undefined], 'shown once, and confirmed')
  await ok(ana.markAsRead([own[0].id], id('ANA')))
  await until(({ messages }) => messages.some((message) => message.id === own[0].id && message.read_by.includes(id('ANA'))), 'the tick')
  await ok(ana.updateTypingStatus(id('ANA'), id('BEN')))
  await until(({ typing }) => typing.includes(id('ANA')), 'Ana to type')
  await ok(ana.updateTypingStatus(id('ANA'), null))
  await until(({ typing }) => typing.length === 0, 'Ana to stop typing')

  const reactions = () => feed.getState().messages.find((message) => message.id === own[0].id).reactions.map(({ reaction }) => reaction)
  await call(server, token('ANA'), 'PUT', `/messages/${own[0].id}/reactions/🎉`)
  await until(() => reactions().includes('🎉'), 'the reaction')
  await call(server, token('ANA'), 'DELETE', `/messages/${own[0].id}/reactions/🎉`)
  await until(() => reactions().length === 0, 'the reaction to be removed')

  wire.refuse(true)
  wire.cut()
  await until(({ status }) => status === 'offline', 'the loss to be noticed')
  const missed = await ok(ana.sendMessage(conversation, id('ANA'), 'missed'))
  const doomed = await ok(ana.sendMessage(conversation, id('ANA'), 'doomed'))
  await call(server, token('ANA'), 'PATCH', `/messages/${missed.id}`, { content: 'missed, and edited' })
  await call(server, token('ANA'), 'DELETE', `/messages/${doomed.id}`)
  await call(server, token('ANA'), 'DELETE', `/messages/${early.id}`)
  await call(server, token('ANA'), 'PUT', `/messages/${own[0].id}/reactions/👍`)
  wire.refuse(false)
  await until(({ status }) => status === 'live', 'the feed to be live again')

  const fresh = await ok(ben.getMessages(conversation))
  const seen = ({ id, content, read_by, reactions, is_edited }) => ({ id, content, read_by, reactions, is_edited })
  assert.deepEqual(feed.getState().messages.slice(-fresh.length).map(seen), fresh.map(seen), 'as a fresh load')
  assert.ok(contents(feed.getState()).includes('missed, and edited'))
  assert.ok(!contents(feed.getState()).includes('doomed'))

  await db.query(`update chat.config set value = to_jsonb(gen_random_uuid()) where key = 'sync_epoch'`)
  wire.cut()
  await until(({ status }) => status === 'offline', 'the second loss')
  await until(({ status }) => status === 'live', 'a fresh start after 410')
  assert.deepEqual(feed.getState().messages.map(seen), (await ok(ben.getMessages(conversation))).map(seen))
})

test('a failed message is reported, and a retry does not create a second one', async () => {
  const ana = apiOf('ANA')
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  const wire = await Wire.to(server.url)
  closing.push(() => wire.close())
  const ben = new UserChatAPI({ baseUrl: server.base.replace(server.url, wire.url), accessToken: async () => token('BEN') })
  const { feed, until } = await feedOf(await socketOf('BEN'), ben, conversation)
  wire.refuse(true)
  wire.cut()
  const key = randomUUID()
  await feed.send('from a tunnel', key)
  await until(({ messages }) => messages.at(-1).state === 'failed', 'the failure')
  wire.refuse(false)
  await feed.send('from a tunnel', key)
  await feed.send('from a tunnel', key)
  const tries = feed.getState().messages.filter(({ client_message_id }) => client_message_id === key)
  assert.deepEqual(tries.map(({ state, sender_id }) => [state, sender_id]), [[undefined, id('BEN')]])
  assert.equal((await ok(ana.getMessages(conversation))).filter(({ content }) => content === 'from a tunnel').length, 1)
})

test('the feed rejoins as soon as there is a valid token', async () => {
  const ana = apiOf('ANA')
  const { id: conversation } = await ok(ana.getOrCreateConversation(id('ANA'), id('BEN')))
  let current = mint(server, { sub: id('BEN'), exp: Math.floor(Date.now() / 1000) + 3 })
  const client = await clientFor(server, () => current)
  closing.push(() => client.removeAllChannels())
  const { feed, until } = await feedOf(client, apiOf('BEN'), conversation)
  await until(({ status }) => status === 'offline', 'the end of the token')
  const missed = await ok(ana.sendMessage(conversation, id('ANA'), 'after the end'))
  current = token('BEN')
  await until(({ status }) => status === 'live', 'the feed to be live again')
  assert.ok(feed.getState().messages.some(({ id }) => id === missed.id))
})

test('the chat client follows the session of its Supabase client', async () => {
  let current = session('BEN', mint(server, { sub: id('BEN'), exp: Math.floor(Date.now() / 1000) + 3_600 }))
  const url = await startAuth(() => current)
  const kept = new Map([['session', JSON.stringify(current)]])
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  }
  const supabase = createClient(url, server.env.ANON_KEY, { auth: { storage, storageKey: 'session', autoRefreshToken: false } })
  const chat = await connectChat(supabase, server.url.replace('http', 'ws'), server.env.ANON_KEY)
  closing.push(() => chat.removeAllChannels())
  const { system } = await subscribe(
    chat.channel(`user:${id('BEN')}`, { config: { private: true } })
      .on('postgres_changes', { event: '*', schema: 'public', table: 'user_messages' }, () => {}),
  )
  current = session('BEN', mint(server, { sub: id('BEN'), exp: Math.floor(Date.now() / 1000) + 7_200 }))
  assert.equal((await supabase.auth.refreshSession()).error, null)
  await system.until((items) => items.filter(({ status }) => status === 'ok').length === 2, 'the subscription under the new token')
  await supabase.auth.dispose?.()
})
