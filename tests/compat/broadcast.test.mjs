// Broadcasts over sockets and over HTTP, between all tested clients.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CLIENTS, Inbox, isBinary, startServer, subscribe } from './support.mjs'

let server
const open = []

before(async () => {
  server = await startServer()
})

after(async () => {
  await Promise.all(open.map((client) => client.closing()))
  assert.equal(await server.stop(), 0)
})

/** A payload with all values that an encoding could corrupt. */
const PAYLOAD = {
  text: 'héllo "quoted" \\ \u2028 😀 \u0000',
  numbers: [0, -1.5, 1e300, 9007199254740991],
  nested: { empty: {}, list: [null, true, [[]]], 'key "with" quotes': 1 },
}

async function client(kind, name = 'ANA') {
  const made = await CLIENTS[kind](server, server.env[`USER_TOKEN_${name}`])
  open.push(made)
  return made
}

/** Joins a channel and collects every broadcast that it receives. */
async function member(kind, topic, broadcast = {}, name = 'ANA') {
  const channel = (await client(kind, name)).channel(topic, { config: { broadcast } })
  const heard = new Inbox()
  channel.on('broadcast', { event: '*' }, heard.push)
  return { kind, channel, heard, ...(await subscribe(channel)) }
}

// Sends a mark from `from` and waits until all `members` have received it. An earlier message that
// has not arrived by then never will.
async function settled(from, members) {
  const mark = `mark ${(settled.count = (settled.count ?? 0) + 1)}`
  assert.equal(await from.channel.send({ type: 'broadcast', event: mark, payload: {} }), 'ok')
  await Promise.all(
    members.map(({ heard, kind }) => heard.find(({ event }) => event === mark, `the mark at ${kind}`)),
  )
}

const withoutMarks = (heard) => heard.items.filter(({ event }) => !event.startsWith('mark '))

test('every client receives the messages of all others in order, with any content', async () => {
  const members = await Promise.all(Object.keys(CLIENTS).map((kind) => member(kind, 'all together', { ack: true })))
  for (const sender of members) {
    for (let n = 0; n < 20; n += 1) {
      const sent = await sender.channel.send({ type: 'broadcast', event: `from ${sender.kind}`, payload: { n, ...PAYLOAD } })
      assert.equal(sent, 'ok', `${sender.kind} receives the reply ok`)
    }
  }
  for (const receiver of members) {
    for (const sender of members.filter((other) => other !== receiver)) {
      const event = `from ${sender.kind}`
      const ofSender = () => receiver.heard.items.filter((item) => item.event === event)
      await receiver.heard.until(() => ofSender().length >= 20, `${receiver.kind} receives from ${sender.kind}`)
      assert.deepEqual(ofSender().map(({ payload }) => payload), Array.from({ length: 20 }, (_, n) => ({ n, ...PAYLOAD })))
      assert.equal(ofSender()[0].type, 'broadcast')
    }
    assert.ok(!receiver.heard.items.some(({ event }) => event === `from ${receiver.kind}`), 'not its own')
  }
})

for (const kind of Object.keys(CLIENTS)) {
  test(`${kind}: broadcasts are echoed only if requested, and only to listeners of the event`, async () => {
    const [quiet, loud] = await Promise.all([
      member(kind, `echo of ${kind}`, { self: false, ack: true }),
      member(kind, `echo of ${kind}`, { self: true, ack: true }),
    ])
    const wanted = new Inbox()
    loud.channel.on('broadcast', { event: 'wanted' }, wanted.push)
    await quiet.channel.send({ type: 'broadcast', event: 'wanted', payload: { by: 'quiet' } })
    await loud.channel.send({ type: 'broadcast', event: 'other', payload: { by: 'loud' } })
    await settled(loud, [quiet, loud])
    await settled(quiet, [loud])
    const by = ({ heard }) => withoutMarks(heard).map(({ payload }) => payload.by)
    assert.deepEqual(by(quiet), ['loud'])
    assert.deepEqual(by(loud), ['quiet', 'loud'])
    assert.deepEqual(wanted.items.map(({ payload }) => payload.by), ['quiet'])
  })
}

test('without ack, sends do not wait and everything arrives', async () => {
  const sender = await member('supabase-js 2.119', 'no ack', {})
  const receiver = await member('supabase-js 2.119', 'no ack', {})
  for (let n = 0; n < 500; n += 1) sender.channel.send({ type: 'broadcast', event: 'n', payload: { n } })
  await receiver.heard.until((items) => items.length === 500, 'all of them')
  assert.deepEqual(receiver.heard.items.map(({ payload }) => payload.n), Array.from({ length: 500 }, (_, n) => n))
})

test('binary payloads arrive unchanged at clients that support them', async () => {
  const members = await Promise.all(Object.keys(CLIENTS).map((kind) => member(kind, 'bytes', { ack: true })))
  const [sender] = members
  const receiver = await member('supabase-js 2.119', 'bytes')
  const bytes = Uint8Array.from({ length: 70_000 }, (_, n) => n % 256)
  assert.equal(await sender.channel.send({ type: 'broadcast', event: 'bytes', payload: bytes.buffer }), 'ok')
  assert.equal(await sender.channel.send({ type: 'broadcast', event: 'none', payload: new ArrayBuffer(0) }), 'ok')
  await settled(sender, [receiver, ...members.slice(1)])
  const [first, second] = withoutMarks(receiver.heard)
  assert.ok(first.payload instanceof ArrayBuffer)
  assert.deepEqual(new Uint8Array(first.payload), bytes)
  assert.equal(second.payload.byteLength, 0)
  for (const { heard, kind } of members.slice(1)) assert.deepEqual(withoutMarks(heard), [], kind)
})

test('names of events and topics may be long and contain any characters', async () => {
  const topic = `räume/😀 ${'x'.repeat(200)}`
  const members = await Promise.all(Object.keys(CLIENTS).map((kind) => member(kind, topic, { ack: true })))
  const event = `ereignis:😀/"'\\ ${'y'.repeat(200)}`
  for (const { channel } of members) {
    assert.equal(await channel.send({ type: 'broadcast', event, payload: { is: 'here' } }), 'ok')
  }
  for (const { heard, kind } of members) {
    await heard.until((items) => items.length === members.length - 1, `all others at ${kind}`)
    assert.ok(heard.items.every((item) => item.event === event && item.payload.is === 'here'))
  }
})

test('messages that are too large are refused with a text, and the channel stays open', async () => {
  for (const kind of ['supabase-js 2.119', 'realtime-js 2.11']) {
    const sender = await member(kind, `large for ${kind}`, { ack: true })
    const large = await sender.channel.send({ type: 'broadcast', event: 'large', payload: { text: 'x'.repeat(3_100_000) } })
    assert.equal(large, 'error')
    const fits = await sender.channel.send({ type: 'broadcast', event: 'large', payload: { text: 'x'.repeat(2_900_000) } })
    assert.equal(fits, 'ok')
    assert.deepEqual(sender.statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
  }
})

test('send() before the join uses HTTP and reaches all members', async () => {
  const members = await Promise.all(Object.keys(CLIENTS).map((kind) => member(kind, 'over http')))
  for (const kind of Object.keys(CLIENTS)) {
    const outside = (await client(kind, 'BEN')).channel('over http')
    const sent = await outside.send({ type: 'broadcast', event: `by ${kind}`, payload: PAYLOAD })
    assert.equal(sent, 'ok', kind)
  }
  for (const { heard, kind } of members) {
    await heard.until((items) => items.length === Object.keys(CLIENTS).length, `all of them at ${kind}`)
    assert.deepEqual(heard.items.map(({ event }) => event), Object.keys(CLIENTS).map((by) => `by ${by}`))
    assert.ok(heard.items.every(({ payload }) => assert.deepEqual(payload, PAYLOAD) ?? true))
  }
})

test('httpSend() sends JSON and binary payloads, also from a joined channel to itself', async () => {
  const members = await Promise.all(Object.keys(CLIENTS).map((kind) => member(kind, 'http/send ü')))
  const [sender] = members
  assert.deepEqual(await sender.channel.httpSend('json', PAYLOAD), { success: true })
  assert.deepEqual(await sender.channel.httpSend('bytes/ü', Uint8Array.of(0, 255, 3)), { success: true })
  assert.deepEqual(await sender.channel.httpSend('last', { is: 'last' }), { success: true })
  for (const { heard, kind } of members) {
    await heard.find(({ event }) => event === 'last', `the last at ${kind}`)
    assert.deepEqual(heard.items.find(({ event }) => event === 'json').payload, PAYLOAD)
    const bytes = heard.items.find(({ event }) => event === 'bytes/ü')
    if (isBinary(kind)) assert.deepEqual(new Uint8Array(bytes.payload), Uint8Array.of(0, 255, 3))
    else assert.equal(bytes, undefined, kind)
  }
})

test('HTTP without a valid token, or with too large a payload, is refused with a reason', async () => {
  const post = (path, headers, body) =>
    fetch(`${server.url}/realtime/v1/api/broadcast${path}`, { method: 'POST', headers, body })
  const json = { 'content-type': 'application/json' }
  const none = await post('', json, JSON.stringify({ messages: [{ topic: 'a', event: 'b', payload: {} }] }))
  assert.deepEqual([none.status, await none.json()], [401, { message: 'Unauthorized' }])
  const key = { ...json, apikey: server.env.ANON_KEY }
  const missing = await post('', key, JSON.stringify({ messages: [{ topic: 'a', payload: {} }] }))
  assert.deepEqual([missing.status, await missing.json()], [422, { errors: { messages: [{ event: ["can't be blank"] }] } }])
  const media = await post('/a/events/b', { ...key, 'content-type': 'text/plain' }, 'x')
  assert.equal(media.status, 415)
  const sender = (await client('supabase-js 2.119')).channel('http too large')
  await assert.rejects(sender.httpSend('large', { text: 'x'.repeat(3_100_000) }))
})
