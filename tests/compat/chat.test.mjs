// The main use case through public interfaces only: messages are sent over REST and arrive on
// sockets of the real supabase-js.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { call, clientFor, Inbox, send, startServer, subscribe } from './support.mjs'

let server
let person
const clients = []

before(async () => {
  server = await startServer()
  person = (name) => ({ id: server.env[`USER_ID_${name}`], token: server.env[`USER_TOKEN_${name}`] })
})

after(async () => {
  await Promise.all(clients.map((client) => client.removeAllChannels()))
  assert.equal(await server.stop(), 0)
})

async function listen(token, topic, binding) {
  const client = await clientFor(server, token)
  clients.push(client)
  const changes = new Inbox()
  const channel = client.channel(topic)
  channel.on('postgres_changes', { event: '*', schema: 'public', ...binding }, (change) =>
    changes.push(change),
  )
  return { client, channel, changes, ...(await subscribe(channel)) }
}

test('a user sends a message to a colleague, who reads it; an outsider sees nothing', async () => {
  const [ana, ben, zoe] = ['ANA', 'BEN', 'ZOE'].map(person)
  const message = { other_user_id: ben.id, content: 'Hello Ben', client_message_id: randomUUID() }
  const first = await call(server, ana.token, 'POST', '/messages', message)
  assert.equal(first.status, 201, JSON.stringify(first.body))
  const again = await call(server, ana.token, 'POST', '/messages', message)
  assert.equal(again.status, 200)
  assert.equal(again.body.id, first.body.id)

  const list = await call(server, ben.token, 'GET', '/conversations')
  assert.equal(list.body.length, 1)
  const [conversation] = list.body
  assert.equal(conversation.unread_count, 1)
  assert.equal(conversation.other_user.id, ana.id)
  assert.equal(conversation.last_message.content, 'Hello Ben')

  const history = await call(server, ben.token, 'GET', `/messages?conversation_id=${conversation.id}`)
  assert.deepEqual(history.body.map(({ content }) => content), ['Hello Ben'])

  const read = await call(server, ben.token, 'PATCH', '/messages', { message_ids: [first.body.id] })
  assert.equal(read.status, 200)
  const after = await call(server, ben.token, 'GET', `/conversations/${conversation.id}`)
  assert.equal(after.body.unread_count, 0)

  const opened = await call(server, zoe.token, 'POST', '/conversations', { other_user_id: ana.id })
  assert.equal(opened.status, 403)
  assert.equal(opened.body.code, 'not_allowed_recipient')
  assert.equal(typeof opened.body.error, 'string')
  for (const path of [`/conversations/${conversation.id}`, `/messages?conversation_id=${conversation.id}`]) {
    assert.equal((await call(server, zoe.token, 'GET', path)).status, 404, path)
  }
})

test('the socket of the recipient receives each message in order, an outsider receives none', async () => {
  const [ana, ben, zoe] = ['ANA', 'BEN', 'ZOE'].map(person)
  const [bens, zoes] = await Promise.all([
    listen(ben.token, 'all-messages', { table: 'user_messages' }),
    listen(zoe.token, 'all-messages', { table: 'user_messages' }),
  ])
  const sent = []
  for (let n = 0; n < 200; n += 1) sent.push(await send(server, ana.token, { other_user_id: ben.id, content: `n ${n}` }))
  const inserts = (items) => items.filter(({ eventType }) => eventType === 'INSERT')
  await bens.changes.until((items) => inserts(items).length >= sent.length, 'every message at Ben')

  const received = inserts(bens.changes.items)
  assert.deepEqual(received.map((change) => change.new.id), sent.map(({ id }) => id), 'each once, in order')
  assert.equal(received[0].new.content, 'n 0')
  assert.equal(received[0].new.conversation_id, sent[0].conversation_id)
  assert.equal(received[0].errors, null)

  // A row that Zoe may see is committed last. It shows that the other rows were not delivered to
  // her.
  const zoesOwn = await listen(zoe.token, 'own-presence', { table: 'user_presence' })
  await call(server, zoe.token, 'POST', '/presence', { status: 'online' })
  await zoesOwn.changes.find((change) => change.new.user_id === zoe.id, 'her own presence')
  assert.deepEqual(zoes.changes.items, [])
})

test('a user finds only users of their team, sets their presence, and reports typing', async () => {
  const [ana, ben] = ['ANA', 'BEN'].map(person)
  const found = await call(server, ana.token, 'GET', '/search?q=be&type=users')
  assert.deepEqual(found.body.map(({ id }) => id), [ben.id])
  assert.deepEqual((await call(server, ana.token, 'GET', '/search?q=zo')).body, [])
  const presence = await call(server, ana.token, 'PUT', '/presence', { status: 'away', current_page: '/x' })
  assert.equal(presence.status, 200)
  assert.equal(presence.body.status, 'away')
  const opened = await call(server, ana.token, 'POST', '/conversations', { other_user_id: ben.id })
  assert.equal(opened.status, 200)
  assert.equal(opened.body.created, false)
  const typing = await call(server, ana.token, 'POST', `/conversations/${opened.body.id}/typing`, { is_typing: true })
  assert.equal(typing.status, 204)
  assert.equal((await call(server, null, 'GET', '/config')).status, 200)
  assert.equal((await call(server, null, 'GET', '/conversations')).status, 401)
})
