// Private channels: the policies on realtime.messages decide who may read, write and track
// presence.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CLIENTS, clientFor, database, Inbox, mint, startServer, subscribe } from './support.mjs'

let server
let db
const open = []

const id = (name) => server.env[`USER_ID_${name}`]
const token = (name) => server.env[`USER_TOKEN_${name}`]

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create table public.members(topic text, person uuid, primary key (topic, person));
    grant select on public.members to authenticated;
    create policy "anybody signed in reads open rooms" on realtime.messages for select to authenticated
      using (realtime.topic() like 'room:%');
    create policy "anybody signed in writes to open rooms" on realtime.messages for insert to authenticated
      with check (realtime.topic() like 'room:%');
    create policy "anybody signed in listens" on realtime.messages for select to authenticated
      using (realtime.topic() like 'listen:%' and extension = 'broadcast');
    create policy "anybody signed in sees who is there" on realtime.messages for select to authenticated
      using (realtime.topic() like 'seen:%' and extension = 'presence');
    create policy "members read" on realtime.messages for select to authenticated
      using (exists (select from public.members where topic = realtime.topic() and person = (select auth.uid())));
    create policy "members write" on realtime.messages for insert to authenticated
      with check (exists (select from public.members where topic = realtime.topic() and person = (select auth.uid())));
    create policy "fails for this topic alone" on realtime.messages for select to authenticated
      using (1 / (length(realtime.topic()) - length('a policy that fails')) = 2);
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.closing()))
  await db.end()
  const code = await server.stop()
  assert.equal(code, 0, server.log().slice(-2500))
})

async function client(kind, name = 'ANA') {
  const made = await CLIENTS[kind](server, token(name))
  open.push(made)
  return made
}

async function speakingAs(current) {
  const made = await clientFor(server, current)
  open.push(Object.assign(made, { closing: () => made.removeAllChannels() }))
  return made
}

/** Creates a channel that is not joined yet, and collects every broadcast that it receives. */
function listening(made, topic, config = {}) {
  const channel = made.channel(topic, { config: { private: true, ...config } })
  const heard = new Inbox()
  channel.on('broadcast', { event: '*' }, heard.push)
  return { channel, heard }
}

async function member(made, topic, config) {
  const listener = listening(made, topic, config)
  return { ...listener, ...(await subscribe(listener.channel)) }
}

const event = (name, payload = {}) => ({ type: 'broadcast', event: name, payload })
const noRead = (topic) => `You do not have permissions to read from this Channel topic: ${topic}`
const noWrite = (topic) => `You do not have permissions to write to this Channel topic: ${topic}`

/** Joins a channel and returns the first status that reports a refusal. */
async function refused(channel) {
  const statuses = new Inbox()
  channel.subscribe((status, error) => statuses.push({ status, error: error?.message }))
  return statuses.find(({ status }) => status !== 'SUBSCRIBED', 'the refusal')
}

test('all clients can send and receive in a room that is open to them', async () => {
  const kinds = Object.keys(CLIENTS)
  const members = await Promise.all(
    kinds.map(async (kind) => member(await client(kind), 'room:all', { broadcast: { ack: true } })),
  )
  for (const [n, { channel }] of members.entries()) assert.equal(await channel.send(event(kinds[n], { n })), 'ok')
  for (const [n, { heard }] of members.entries()) {
    await heard.until((items) => items.length === kinds.length - 1, `the others at ${kinds[n]}`)
    assert.deepEqual(heard.items.map(({ event }) => event), kinds.filter((kind) => kind !== kinds[n]))
  }
})

for (const kind of Object.keys(CLIENTS)) {
  test(`${kind} receives the reason for a refused join immediately, and its other channels continue`, async () => {
    const made = await client(kind)
    const begun = performance.now()
    const { status, error } = await refused(made.channel('closed:1', { config: { private: true } }))
    assert.equal(status, 'CHANNEL_ERROR')
    const reason = `Unauthorized: ${noRead('closed:1')}`
    // Clients before 2.12 report the reason as JSON.
    assert.ok([reason, JSON.stringify(reason)].includes(error), error)
    // Supabase Realtime would keep the client, with all its channels, waiting for five seconds.
    assert.ok(performance.now() - begun < 4_000)
    const { channel } = await member(made, 'room:beside', { broadcast: { ack: true } })
    assert.equal(await channel.send(event('works')), 'ok')
  })
}

test('the public key alone identifies no user', async () => {
  const nobody = await speakingAs(server.env.ANON_KEY)
  assert.equal((await refused(listening(nobody, 'room:all').channel)).error, `Unauthorized: ${noRead('room:all')}`)
  const opaque = await speakingAs('sb_publishable_0123456789')
  assert.equal((await refused(listening(opaque, 'room:all').channel)).error, `Unauthorized: ${noRead('room:all')}`)
})

test('a policy that fails refuses the join without details', async () => {
  const made = await client('supabase-js 2.119')
  assert.equal((await refused(listening(made, 'a policy that fails').channel)).error, `Unauthorized: ${noRead('a policy that fails')}`)
})

test('a send without write permission is refused, with and without ack', async () => {
  const listener = await member(await client('supabase-js 2.119'), 'listen:1')
  const acked = await member(await client('supabase-js 2.119', 'BEN'), 'listen:1', { broadcast: { ack: true } })
  assert.equal(await acked.channel.send(event('with ack')), 'error')
  const quiet = await member(await client('supabase-js 2.119', 'BEN'), 'listen:1')
  assert.equal(await quiet.channel.send(event('without ack')), 'ok', 'the client waits for nothing')
  const told = await quiet.system.find(({ status }) => status === 'error', 'why it was not sent')
  assert.deepEqual([told.extension, told.message, told.channel], ['system', noWrite('listen:1'), 'listen:1'])
  // The service role may send anywhere. Its message shows that no earlier message arrived.
  const service = await member(await speakingAs(mint(server, { role: 'service_role' })), 'listen:1', { broadcast: { ack: true } })
  assert.equal(await service.channel.send(event('from the service')), 'ok')
  await listener.heard.until((items) => items.length > 0, 'the service')
  assert.deepEqual(listener.heard.items.map(({ event }) => event), ['from the service'])
})

test('permission to see presence does not include broadcasts', async () => {
  const [watcher, speaker] = [await client('supabase-js 2.119'), await speakingAs(mint(server, { role: 'service_role' }))]
  const { channel, heard } = listening(watcher, 'seen:1')
  channel.on('presence', { event: 'sync' }, () => {})
  await subscribe(channel)
  const beside = await member(watcher, 'room:mark')
  const service = await member(speaker, 'seen:1', { broadcast: { ack: true } })
  assert.equal(await service.channel.send(event('not for watchers')), 'ok')
  await (await member(speaker, 'room:mark')).channel.send(event('mark'))
  await beside.heard.find(({ event }) => event === 'mark', 'the mark')
  assert.deepEqual(heard.items, [])
})

test('a private room and the public one of the same name are separate', async () => {
  const made = await client('supabase-js 2.119')
  const inside = await member(made, 'room:double', { broadcast: { ack: true } })
  const outside = await member(await client('realtime-js 2.11', 'BEN'), 'room:double', { private: false, broadcast: { ack: true } })
  assert.equal(await inside.channel.send(event('inside')), 'ok')
  assert.equal(await outside.channel.send(event('outside')), 'ok')
  const alsoInside = await member(await client('realtime-js 2.10', 'BEN'), 'room:double', { broadcast: { ack: true } })
  const alsoOutside = await member(await client('supabase-js 2.119', 'BEN'), 'room:double', { private: false, broadcast: { ack: true } })
  assert.equal(await alsoInside.channel.send(event('also inside')), 'ok')
  assert.equal(await alsoOutside.channel.send(event('also outside')), 'ok')
  await inside.heard.until((items) => items.length > 0, 'what is said inside')
  await outside.heard.until((items) => items.length > 0, 'what is said outside')
  assert.deepEqual(inside.heard.items.map(({ event }) => event), ['also inside'])
  assert.deepEqual(outside.heard.items.map(({ event }) => event), ['also outside'])
})

test('the same policies apply over HTTP', async () => {
  const listener = await member(await client('supabase-js 2.119'), 'room:http')
  const closed = await member(await client('supabase-js 2.119'), 'listen:http')
  const sender = await client('supabase-js 2.119', 'BEN')
  assert.deepEqual(await listening(sender, 'room:http').channel.httpSend('single', { n: 1 }), { success: true })
  assert.equal(await listening(sender, 'room:http 2').channel.send(event('batch')), 'ok')
  await assert.rejects(listening(sender, 'listen:http').channel.httpSend('no', { n: 1 }), /Unauthorized/)
  assert.equal(await listening(sender, 'listen:http').channel.send(event('dropped')), 'ok', 'as the original answers')
  const service = await speakingAs(mint(server, { role: 'service_role' }))
  await listening(service, 'listen:http').channel.httpSend('mark', {})
  await closed.heard.until((items) => items.length > 0, 'the mark')
  assert.deepEqual(closed.heard.items.map(({ event }) => event), ['mark'])
  await listener.heard.until((items) => items.length > 0, 'the single one')
  assert.deepEqual(listener.heard.items.map(({ event, payload }) => [event, payload]), [['single', { n: 1 }]])
})

test('a new token is checked without a new join: the channel stays open, or is closed with a reason', async () => {
  await db.query(`insert into public.members values ('members:1', $1), ('members:1', $2)`, [id('ANA'), id('BEN')])
  let current = token('ANA')
  const made = await speakingAs(() => current)
  const room = await member(made, 'members:1', { broadcast: { ack: true } })
  const other = await member(await client('supabase-js 2.119', 'BEN'), 'members:1', { broadcast: { ack: true } })
  assert.equal(await room.channel.send(event('as Ana')), 'ok')
  current = token('BEN')
  await made.realtime.setAuth()
  assert.equal(await room.channel.send(event('as Ben')), 'ok')
  await other.heard.until((items) => items.length === 2, 'both')
  current = token('ZOE')
  await made.realtime.setAuth()
  const told = await room.system.find(({ status }) => status === 'error', 'the reason')
  assert.ok([noRead('members:1'), `You no longer have permission to read from this Channel topic: members:1`].includes(told.message), told.message)
  await room.statuses.find(({ status }) => status === 'CLOSED', 'CLOSED')
  assert.equal(made.realtime.isConnected(), true)
  await other.channel.send(event('after'))
  assert.deepEqual(other.statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
})

test('write permission is checked again after a new token', async () => {
  let current = token('ANA')
  const made = await speakingAs(() => current)
  await db.query(`insert into public.members values ('members:2', $1)`, [id('ANA')])
  await db.query(`create policy "everybody reads members:2" on realtime.messages for select to authenticated
                    using (realtime.topic() = 'members:2')`)
  const room = await member(made, 'members:2', { broadcast: { ack: true } })
  assert.equal(await room.channel.send(event('a member')), 'ok')
  current = token('BEN')
  await made.realtime.setAuth()
  assert.equal(await room.channel.send(event('no member')), 'error')
  current = token('ANA')
  await made.realtime.setAuth()
  assert.equal(await room.channel.send(event('a member again')), 'ok')
})

test('the expiry of a token is announced, and a timely refresh keeps the channel', async () => {
  const brief = mint(server, { sub: id('ANA'), exp: Math.floor(Date.now() / 1000) + 4 })
  let current = brief
  const made = await speakingAs(() => current)
  const renewed = await member(made, 'room:expiry', { broadcast: { ack: true } })
  const forgotten = await member(await speakingAs(brief), 'room:expiry', { broadcast: { ack: true } })
  const warning = await renewed.system.find(({ message }) => /^Token expires in \d+ seconds$/.test(message), 'the warning')
  assert.deepEqual([warning.extension, warning.status], ['system', 'ok'])
  current = token('ANA')
  await made.realtime.setAuth()
  const expired = await forgotten.system.find(({ status }) => status === 'error', 'the end of the other')
  assert.match(expired.message, /^Token has expired \d+ seconds ago$/)
  await forgotten.statuses.find(({ status }) => status === 'CLOSED', 'CLOSED')
  assert.equal(await renewed.channel.send(event('still here')), 'ok')
  assert.deepEqual(renewed.statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
})

test('an invalid token ends the channel with a reason, and the socket stays open', async () => {
  const [head, body] = token('ANA').split('.')
  const cases = [
    [`${head}.${body}.bm90IHRoZSBzaWduYXR1cmU`, /signature/i],
    ['no token', /not a valid JWT/],
    [mint(server, { sub: id('ANA'), exp: 1 }), /^Token has expired \d+ seconds ago$/],
    [mint(server, { sub: id('ANA'), role: undefined }), /`role` and `exp` are required/],
  ]
  for (const [bad, reason] of cases) {
    let current = token('ANA')
    const made = await speakingAs(() => current)
    const room = await member(made, 'room:bad token')
    current = bad
    await made.realtime.setAuth()
    const told = await room.system.find(({ status }) => status === 'error', 'the reason')
    assert.match(told.message, reason)
    await room.statuses.find(({ status }) => status === 'CLOSED', 'CLOSED')
    assert.equal(made.realtime.isConnected(), true)
  }
})
