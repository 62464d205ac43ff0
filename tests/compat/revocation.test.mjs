// What the official clients see when a member is removed or suspended, and under which key their
// presence is tracked.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CLIENTS, database, Inbox, send, startServer, subscribe } from './support.mjs'

let server
let db
const clients = []
const person = (name) => ({ id: server.env[`USER_ID_${name}`], token: server.env[`USER_TOKEN_${name}`] })

before(async () => {
  server = await startServer()
  db = await database(server)
})

after(async () => {
  await Promise.all(clients.map((client) => client.closing()))
  await db.end()
  assert.equal(await server.stop(), 0)
})

async function member(kind, who, topic, key) {
  const client = await CLIENTS[kind](server, who.token)
  clients.push(client)
  const heard = new Inbox()
  const channel = client.channel(topic, { config: { private: true, presence: { enabled: true, key } } })
  channel.on('broadcast', { event: '*' }, heard.push)
  channel.on('presence', { event: 'sync' }, () => {})
  return { client, channel, heard, ...(await subscribe(channel)) }
}

const isMember = (conversation, who, left_at) =>
  db.query('update public.user_conversation_members set left_at = $3 where conversation_id = $1 and user_id = $2', [
    conversation,
    who.id,
    left_at,
  ])

for (const kind of Object.keys(CLIENTS)) {
  test(`${kind}: only the channel of a removed member is closed, within a second`, async () => {
    const [ana, ben] = ['ANA', 'BEN'].map(person)
    const { conversation_id: conversation } = await send(server, ana.token, { other_user_id: ben.id, content: 'Hello' })
    const topic = `conversation:${conversation}`
    const [bens, anas] = await Promise.all([member(kind, ben, topic, ben.id), member(kind, ana, topic, ben.id)])

    // The presence key is the user's id, whatever key the client requests.
    assert.equal(await anas.channel.track({ name: 'Ana' }), 'ok')
    const shown = new Inbox()
    const look = setInterval(() => {
      const keys = Object.keys(bens.channel.presenceState())
      if (keys.length > 0) shown.push(keys)
    }, 20)
    await shown.until((items) => items.length > 0, 'the presence of Ana')
    clearInterval(look)
    assert.deepEqual(shown.items[0], [ana.id])

    const begun = performance.now()
    await isMember(conversation, ben, new Date())
    await bens.statuses.find(({ status }) => status === 'CLOSED', 'the end of the channel')
    const took = performance.now() - begun
    assert.ok(took < 1_000, `the channel is closed within a second, not ${took} ms`)
    const { message } = await bens.system.find(({ status }) => status === 'error', 'why')
    assert.equal(message, `You do not have permissions to read from this Channel topic: ${topic}`)

    await db.query("select realtime.send('{}', 'news', $1, true)", [topic])
    await anas.heard.find(({ event }) => event === 'news', 'news at Ana')
    assert.equal(anas.channel.state, 'joined')
    assert.ok(bens.heard.items.every(({ event }) => event !== 'news'))

    // The client does not rejoin by itself. A member who has been added again may join.
    assert.notEqual(bens.channel.state, 'joined')
    await isMember(conversation, ben, null)
    const again = await member(kind, ben, topic, ben.id)
    await db.query("select realtime.send('{}', 'more news', $1, true)", [topic])
    await again.heard.find(({ event }) => event === 'more news', 'more news at Ben')
  })
}

test('the presence of a suspended user is removed within a second', async () => {
  const kind = Object.keys(CLIENTS)[0]
  const [ana, ben] = ['ANA', 'BEN'].map(person)
  const { conversation_id: conversation } = await send(server, ana.token, { other_user_id: ben.id, content: 'Hello' })
  const topic = `conversation:${conversation}`
  const [anas, bens] = await Promise.all([member(kind, ana, topic), member(kind, ben, topic)])
  const isShown = async (expected) => {
    while (ben.id in anas.channel.presenceState() !== expected) await new Promise((resume) => setTimeout(resume, 10))
  }
  const setStatus = (status) => db.query('update public.users set status = $2 where id = $1', [ben.id, status])

  assert.equal(await bens.channel.track({}), 'ok')
  await isShown(true)
  try {
    const begun = performance.now()
    await setStatus('suspended')
    await isShown(false)
    const took = performance.now() - begun
    assert.ok(took < 1_000, `the presence is removed within a second, not ${took} ms`)
    // Suspended users may still read, so their channel stays open.
    await db.query("select realtime.send('{}', 'still here', $1, true)", [topic])
    await bens.heard.find(({ event }) => event === 'still here', 'a broadcast at Ben')
  } finally {
    await setStatus('active')
  }
})
