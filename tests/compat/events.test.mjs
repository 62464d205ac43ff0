// The chat's events on its private channels, and presence, as the real supabase-js receives them.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { call, clientFor, Inbox, send, startServer, subscribe } from './support.mjs'

let server
const clients = []
const person = (name) => ({ id: server.env[`USER_ID_${name}`], token: server.env[`USER_TOKEN_${name}`] })

before(async () => {
  server = await startServer()
})

after(async () => {
  await Promise.all(clients.map((client) => client.removeAllChannels()))
  assert.equal(await server.stop(), 0)
})

/** Connects a device of a user that receives the broadcasts of a private channel. */
async function listen(who, topic) {
  const client = await clientFor(server, who.token)
  clients.push(client)
  const heard = new Inbox()
  const channel = client.channel(topic, { config: { private: true } })
  channel.on('broadcast', { event: '*' }, heard.push)
  await subscribe(channel)
  return { client, channel, heard }
}

test('reading on one device lowers the badge on the other, and sends the sender a receipt', async () => {
  const [ana, ben] = ['ANA', 'BEN'].map(person)
  const message = await send(server, ana.token, { other_user_id: ben.id, content: 'Hello' })
  const [device, sender] = await Promise.all([
    listen(ben, `user:${ben.id}`),
    listen(ana, `conversation:${message.conversation_id}`),
  ])
  const second = await send(server, ana.token, { conversation_id: message.conversation_id, content: 'Are you there?' })
  const unread = (total) => ({ type, event, payload }) =>
    type === 'broadcast' && event === 'unread.updated' && payload.total === total
  const { payload } = await device.heard.find(unread(2), 'a badge of two')
  assert.deepEqual(payload, { total: 2, conversations: 1, mentions: 0 })

  const begun = performance.now()
  const read = await call(server, ben.token, 'POST', `/conversations/${message.conversation_id}/read`, {})
  assert.equal(read.status, 200)
  await device.heard.find(unread(0), 'no badge')
  const took = performance.now() - begun
  assert.ok(took < 1_000, `the badge drops within a second, not ${took} ms`)
  const updated = await device.heard.find(
    ({ event, payload }) => event === 'conversation.updated' && payload.unread_count === 0,
    'the conversation is read',
  )
  assert.equal(updated.payload.conversation_id, message.conversation_id)
  assert.equal(updated.payload.last_read_message_id, second.id)
  const receipt = await sender.heard.find(({ event }) => event === 'receipt', 'a receipt')
  assert.equal(receipt.payload.user_id, ben.id)
  assert.equal(receipt.payload.last_read_seq, second.seq)
})

test('typing reaches the other user, and expires when the client is gone', async () => {
  const [ana, ben] = ['ANA', 'BEN'].map(person)
  const { conversation_id } = await send(server, ana.token, { other_user_id: ben.id, content: 'Hm' })
  const { heard } = await listen(ben, `conversation:${conversation_id}`)
  const begun = performance.now()
  const typed = await call(server, ana.token, 'POST', `/conversations/${conversation_id}/typing`, { is_typing: true })
  assert.equal(typed.status, 204)
  const typing = (is) => ({ event, payload }) => event === 'typing' && payload.is_typing === is
  const { payload } = await heard.find(typing(true), 'Ana types')
  assert.deepEqual(payload, { conversation_id, user_id: ana.id, is_typing: true, expires_in_ms: 6000 })
  await heard.find(typing(false), 'typing expires')
  assert.ok(performance.now() - begun < 7_000, 'within seven seconds')
})

test('only members can receive events, and only the server can send them', async () => {
  const [ana, ben, zoe] = ['ANA', 'BEN', 'ZOE'].map(person)
  const { conversation_id } = await send(server, ana.token, { other_user_id: ben.id, content: 'Between us' })
  for (const topic of [`conversation:${conversation_id}`, `user:${ana.id}`]) {
    const client = await clientFor(server, zoe.token)
    clients.push(client)
    const statuses = new Inbox()
    client.channel(topic, { config: { private: true } }).subscribe(statuses.push)
    await statuses.until((all) => all.length > 0, `an answer to Zoe on ${topic}`)
    assert.equal(statuses.items[0], 'CHANNEL_ERROR')
  }
  const topic = `conversation:${conversation_id}`
  const [bens, anas] = await Promise.all([listen(ben, topic), listen(ana, topic)])
  await bens.channel.send({ type: 'broadcast', event: 'typing', payload: { conversation_id, user_id: ana.id, is_typing: true } })
  await call(server, ben.token, 'POST', `/conversations/${conversation_id}/typing`, { is_typing: true })
  const { payload } = await anas.heard.find(({ event }) => event === 'typing', 'a typing event')
  assert.equal(payload.user_id, ben.id, 'only what the server sends arrives')
})

test('a user with a connected device is online for colleagues', async () => {
  const [ana, ada] = ['ANA', 'ADA'].map(person)
  const watcher = await clientFor(server, ana.token)
  clients.push(watcher)
  const changes = new Inbox()
  const channel = watcher.channel('user-presence')
  channel.on('postgres_changes', { event: '*', schema: 'public', table: 'user_presence' }, changes.push)
  await subscribe(channel)
  await listen(ada, `user:${ada.id}`)
  await changes.find(
    ({ new: row }) => row.user_id === ada.id && row.status === 'online' && row.device_count === 1,
    'Ada is online',
  )
})
