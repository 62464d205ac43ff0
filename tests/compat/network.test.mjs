// The behaviour of every client when the network, the server or the database fails and returns.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { CLIENTS, clientFor, database, freePort, Inbox, postgres, serve, startServer, subscribe, Wire } from './support.mjs'

let server
let db
const open = []

const KINDS = Object.keys(CLIENTS)

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create policy "rooms are open" on realtime.messages for select to authenticated using (realtime.topic() like 'room:%');
    create policy "rooms may be written to" on realtime.messages for insert to authenticated
      with check (realtime.topic() like 'room:%');
    create table public.rows(id int primary key);
    grant select on public.rows to authenticated;
    alter publication supabase_realtime add table public.rows;
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.closing()))
  await db.end()
  const code = await server.stop()
  assert.equal(code, 0, server.log().slice(-2500))
})

async function client(kind, where = server, name = 'ANA') {
  const made = await CLIENTS[kind](where, server.env[`USER_TOKEN_${name}`])
  open.push(made)
  return made
}

/** Joins a channel with all features: broadcasts, presence under `key`, and row changes. */
async function everything(made, topic, key) {
  const isPrivate = topic.startsWith('room:')
  const channel = made.channel(topic, { config: { private: isPrivate, broadcast: { ack: true }, presence: { key } } })
  const [heard, rows, synced] = [new Inbox(), new Inbox(), new Inbox()]
  channel
    .on('broadcast', { event: '*' }, heard.push)
    .on('presence', { event: 'sync' }, () => synced.push(Object.keys(channel.presenceState()).sort()))
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'rows' }, (change) => rows.push(change.new.id))
  return { made, channel, key, heard, rows, synced, ...(await subscribe(channel)) }
}

const times = ({ items }, status) => items.filter((item) => item.status === status).length

/** Returns the members once they have recovered from an interruption. */
const backAgain = (members) =>
  Promise.all(
    members.map(async (member) => {
      const { made, channel, key, statuses } = member
      if (key !== 'realtime-js 2.11') {
        await statuses.until(() => times(statuses, 'SUBSCRIBED') === 2, `${key} is back`)
        return member
      }
      // When this client reconnects, it stops the timers that would rejoin its channels.
      // Applications have to rejoin themselves.
      await made.opened.until((items) => items.length === 2, `${key} is connected again`)
      await made.removeChannel(channel)
      return everything(made, channel.subTopic, key)
    }),
  )

/** Checks that all features work between these members. */
async function works(members, id) {
  for (const { channel, key } of members) {
    assert.equal(await channel.track({ id }), 'ok', key)
    assert.equal(await channel.send({ type: 'broadcast', event: `${id} from ${key}`, payload: { id } }), 'ok', key)
  }
  await db.query('insert into public.rows values ($1)', [id])
  const keys = members.map(({ key }) => key).sort()
  for (const { heard, rows, synced, key } of members) {
    await rows.until((items) => items.includes(id), `row ${id} at ${key}`)
    await synced.until((items) => isDeepStrictEqual(items.at(-1), keys), `everybody's presence at ${key}`)
    for (const other of keys.filter((it) => it !== key)) {
      await heard.find(({ event }) => event === `${id} from ${other}`, `${other} heard by ${key}`)
    }
  }
}

test('after its connection was cut, every client recovers all its channels', async () => {
  const wire = await Wire.to(server.url)
  const through = { ...server, url: wire.url }
  for (const topic of ['room:cut', 'cut']) {
    const members = await Promise.all(KINDS.map(async (kind) => everything(await client(kind, through), topic, kind)))
    await works(members, topic.length)
    wire.cut()
    await works(await backAgain(members), 100 + topic.length)
    await Promise.all(members.map(({ made }) => made.closing()))
  }
  await wire.close()
})

test('a silently dead connection is detected by the heartbeat', async () => {
  const wire = await Wire.to(server.url)
  const made = await clientFor({ ...server, url: wire.url }, server.env.USER_TOKEN_ANA, { heartbeatIntervalMs: 400 })
  open.push(Object.assign(made, { closing: () => made.removeAllChannels() }))
  const member = await everything(made, 'stalled', 'ana')
  await works([member], 200)
  wire.stall()
  const lost = await member.statuses.find(({ status }) => status === 'CHANNEL_ERROR', 'the loss')
  assert.equal(lost.error, 'heartbeat timeout')
  wire.resume()
  await member.statuses.until(() => times(member.statuses, 'SUBSCRIBED') === 2, 'back again')
  await works([member], 201)
  await made.closing()
  await wire.close()
})

test('a server that restarts notifies all clients, and all of them reconnect', async (t) => {
  const port = await freePort()
  const where = { ...server, url: `http://127.0.0.1:${port}` }
  let beside = await serve(server, port)
  // A server that still runs would keep a failed test run from ending.
  t.after(() => beside.stop())
  const members = await Promise.all(KINDS.map(async (kind) => everything(await client(kind, where), 'room:restart', kind)))
  await works(members, 300)
  assert.equal(await beside.stop(), 0)
  for (const { statuses, key } of members) {
    const { error } = await statuses.find(({ status }) => status === 'CHANNEL_ERROR', `the end at ${key}`)
    if (key.startsWith('supabase-js')) assert.equal(error, 'socket closed: 1012 (Server is restarting)')
  }
  beside = await serve(server, port)
  await works(await backAgain(members), 301)
  await Promise.all(members.map(({ made }) => made.closing()))
  assert.equal(await beside.stop(), 0)
})

test('during an outage of the database, features that do not need it continue, and the others report the outage and recover', async () => {
  const members = await Promise.all(
    KINDS.map(async (kind) => {
      const member = await everything(await client(kind), 'public', kind)
      await member.system.find(({ status }) => status === 'ok', 'changes are live')
      return member
    }),
  )
  const inside = await everything(await client('supabase-js 2.119'), 'room:inside', 'ana')
  await works(members, 400)
  const control = await postgres(db)
  control('stop')
  for (const { system, key } of [...members, inside]) {
    const { message } = await system.find(({ status }) => status === 'error', `the news at ${key}`)
    assert.match(message, /^Changes are interrupted/)
  }

  // Broadcasts, presence and joins of public channels do not need the database, and neither do
  // broadcasts over HTTP.
  const newcomer = await everything(await client('supabase-js 2.119', server, 'BEN'), 'public', 'newcomer')
  const all = [...members, newcomer]
  for (const { channel, key } of all) {
    assert.equal(await channel.track({ is: 'here all the same' }), 'ok', key)
    assert.equal(await channel.send({ type: 'broadcast', event: `away ${key}`, payload: {} }), 'ok', key)
  }
  await newcomer.channel.httpSend('away http', {})
  for (const { heard, synced, key } of all) {
    await heard.find(({ event }) => event === 'away http', `HTTP at ${key}`)
    await synced.until((items) => items.at(-1)?.length === all.length, `all present at ${key}`)
    assert.equal(heard.items.filter(({ event }) => event.startsWith('away ')).length, all.length)
  }
  assert.match((await newcomer.system.find(({ status }) => status === 'error', 'why not')).message, /Changes are not live|Changes are interrupted|cannot be reached/)

  // A join of a private channel fails immediately. Its existing members stay.
  const refused = new Inbox()
  const begun = performance.now()
  const outside = newcomer.made.channel('room:new', { config: { private: true } })
  outside.subscribe((status, error) => refused.push({ status, error: error?.message }))
  const { error } = await refused.find(({ status }) => status === 'CHANNEL_ERROR', 'the refusal')
  assert.equal(error, 'UnableToConnectToProject: Realtime was unable to connect to the project database')
  assert.ok(performance.now() - begun < 5_000)
  assert.equal(inside.channel.state, 'joined')

  control('start')
  db = await database(server)
  for (const { system, key } of [...all, inside]) {
    await system.until(
      (items) => items.at(-1).status === 'ok' && items.at(-1).message === 'Subscribed to PostgreSQL',
      `changes are live again at ${key}`,
    )
  }
  await refused.find(({ status }) => status === 'SUBSCRIBED', 'the private channel, by itself')
  await db.query('insert into public.rows values (401)')
  for (const { rows, statuses, key } of [...all, inside]) {
    await rows.until((items) => items.includes(401), `the row at ${key}`)
    assert.deepEqual(statuses.items.map(({ status }) => status), ['SUBSCRIBED'], `${key} never left`)
  }
})
