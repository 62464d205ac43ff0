// Presence as every client reports it: clients track, change, leave, disappear and return.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { CLIENTS, clientFor, database, Inbox, mint, startServer, subscribe, Wire } from './support.mjs'

let server
let db
const open = []

const KINDS = Object.keys(CLIENTS)

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create policy "all may read presence" on realtime.messages for select to authenticated
      using (realtime.topic() = 'hall' and extension in ('broadcast', 'presence'));
    create policy "all may track presence" on realtime.messages for insert to authenticated
      with check (realtime.topic() = 'hall');
    create policy "everybody may look" on realtime.messages for select to authenticated
      using (realtime.topic() = 'window');
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.closing()))
  await db.end()
  const code = await server.stop()
  assert.equal(code, 0, server.log().slice(-2500))
})

async function client(kind, name = 'ANA', where = server) {
  const made = await CLIENTS[kind](where, server.env[`USER_TOKEN_${name}`])
  open.push(made)
  return made
}

/** Creates a channel with presence under `key`, and records all its callbacks. */
function watching(made, topic, key, config = {}) {
  const channel = made.channel(topic, { config: { presence: { key }, ...config } })
  const events = new Inbox()
  const seen = new Set()
  channel.on('presence', { event: 'sync' }, () => events.push({ event: 'sync' }))
  for (const event of ['join', 'leave']) {
    channel.on('presence', { event }, ({ key, newPresences, leftPresences }) => {
      const presences = newPresences ?? leftPresences
      for (const { presence_ref: ref } of presences) {
        assert.ok(!seen.has(`${event} ${ref}`), `the ${event} of ${key} came twice`)
        seen.add(`${event} ${ref}`)
      }
      events.push({ event, key, presences: presences.map(withoutRef) })
    })
  }
  return { channel, events }
}

async function member(made, topic, key, config) {
  const watched = watching(made, topic, key, config)
  return { made, ...watched, ...(await subscribe(watched.channel)) }
}

const withoutRef = ({ presence_ref, ...payload }) => {
  assert.equal(typeof presence_ref, 'string')
  return payload
}

/** Maps each key of the client's current state to its payloads. */
const present = ({ channel }) =>
  Object.fromEntries(Object.entries(channel.presenceState()).map(([key, list]) => [key, list.map(withoutRef)]))

/** Waits until all members have exactly this state. */
const agree = (members, expected, what) =>
  Promise.all(
    members.map((member) =>
      member.events.until(
        () => isDeepStrictEqual(present(member), expected),
        `${what}: ${JSON.stringify(expected)}; known now ${JSON.stringify(present(member))}`,
      ),
    ),
  )

test('every client sees all others join, change and leave', async () => {
  const members = await Promise.all(KINDS.map(async (kind) => member(await client(kind), 'mixed', kind)))
  const expected = {}
  for (const [n, kind] of KINDS.entries()) {
    assert.equal(await members[n].channel.track({ n, mood: 'fine' }), 'ok', kind)
    expected[kind] = [{ n, mood: 'fine' }]
  }
  await agree(members, expected, 'all are there')
  for (const [n, kind] of KINDS.entries()) {
    assert.equal(await members[n].channel.track({ n, mood: 'better' }), 'ok', kind)
    expected[kind] = [{ n, mood: 'better' }]
  }
  await agree(members, expected, 'all have changed')
  const [first, second] = members
  assert.equal(await second.channel.untrack(), 'ok')
  delete expected[KINDS[1]]
  await agree(members, expected, 'one has hidden')
  await first.channel.unsubscribe()
  delete expected[KINDS[0]]
  await agree(members.slice(1), expected, 'one has left')
  await members[3].made.closing()
  delete expected[KINDS[3]]
  await agree([members[1], members[2]], expected, 'one has vanished')
})

for (const kind of KINDS) {
  test(`${kind} is called back for actual changes only`, async () => {
    const topic = `callbacks of ${kind}`
    const watcher = await member(await client(kind), topic, 'watcher')
    await watcher.events.find(({ event }) => event === 'sync', 'the first sync, of an empty topic')
    assert.deepEqual(present(watcher), {})
    const other = await member(await client('supabase-js 2.119', 'BEN'), topic, 'other')
    await other.channel.track({ n: 1 })
    await agree([watcher], { other: [{ n: 1 }] }, 'tracked')
    await other.channel.track({ n: 2 })
    await agree([watcher], { other: [{ n: 2 }] }, 'tracked again')
    await other.channel.untrack()
    await agree([watcher], {}, 'untracked')
    const happened = watcher.events.items.filter(({ event }) => event !== 'sync')
    const of = (event, n) => happened.filter((it) => it.event === event && it.presences.some((one) => one.n === n)).length
    assert.deepEqual([of('join', 1), of('join', 2), of('leave', 1), of('leave', 2)], [1, 1, 1, 1], JSON.stringify(happened))
    assert.ok(happened.every(({ key }) => key === 'other'))
  })

  test(`${kind} receives the current presence when it joins, and again when it reconnects`, async () => {
    const topic = `state for ${kind}`
    const early = await member(await client('supabase-js 2.119', 'BEN'), topic, 'early')
    await early.channel.track({ since: 'the beginning' })
    const made = await client(kind)
    const late = await member(made, topic, 'late')
    await agree([late], { early: [{ since: 'the beginning' }] }, 'the state at the join')
    await late.channel.track({ since: 'later' })
    await agree([early, late], { early: [{ since: 'the beginning' }], late: [{ since: 'later' }] }, 'both')
    await late.channel.unsubscribe()
    await agree([early], { early: [{ since: 'the beginning' }] }, 'one has left')
    const again = await member(made, topic, 'late')
    await agree([again], { early: [{ since: 'the beginning' }] }, 'the state at the second join')
  })
}

test('two windows of one user are two presences under one key', async () => {
  const first = await member(await client('supabase-js 2.119'), 'windows', 'ana')
  const second = await member(await client('realtime-js 2.11'), 'windows', 'ana')
  const watcher = await member(await client('realtime-js 2.10', 'BEN'), 'windows', 'ben')
  await first.channel.track({ window: 1 })
  await second.channel.track({ window: 2 })
  const windows = (member) => (present(member).ana ?? []).map(({ window }) => window).sort()
  const all = [first, second, watcher]
  await Promise.all(all.map((it) => it.events.until(() => isDeepStrictEqual(windows(it), [1, 2]), 'both windows')))
  await first.made.closing()
  await Promise.all([second, watcher].map((it) => it.events.until(() => isDeepStrictEqual(windows(it), [2]), 'one window')))
})

test('a client without a presence key is assigned one', async () => {
  const made = await member(await client('supabase-js 2.119'), 'no key', '')
  await made.channel.track({ who: 'nobody' })
  await made.events.until(() => Object.keys(present(made)).length === 1, 'a key')
  assert.match(Object.keys(present(made))[0], /^[0-9a-f]{8}-[0-9a-f-]{27}$/)
})

test('a cut connection ends presence; a client that reconnects sees the others and is seen again', async () => {
  const wire = await Wire.to(server.url)
  const stays = await member(await client('supabase-js 2.119', 'BEN'), 'cut', 'stays')
  await stays.channel.track({ is: 'there' })
  const made = await client('supabase-js 2.119', 'ANA', { ...server, url: wire.url })
  const cut = watching(made, 'cut', 'cut')
  const statuses = new Inbox()
  // As in the guides, the client tracks whenever its channel is subscribed.
  cut.channel.subscribe(async (status) => {
    statuses.push(status)
    if (status === 'SUBSCRIBED') await cut.channel.track({ time: statuses.items.filter((it) => it === status).length })
  })
  await agree([stays, cut], { stays: [{ is: 'there' }], cut: [{ time: 1 }] }, 'both')
  wire.cut()
  await agree([stays], { stays: [{ is: 'there' }] }, 'one is gone')
  await agree([stays, cut], { stays: [{ is: 'there' }], cut: [{ time: 2 }] }, 'both again')
  await made.closing()
  await wire.close()
})

test('fifty clients that join and leave simultaneously are seen consistently', async () => {
  const made = await Promise.all(Array.from({ length: 50 }, (_, n) => client(KINDS[n % KINDS.length])))
  const members = await Promise.all(made.map((one, n) => member(one, 'crowd', `k${n}`)))
  await Promise.all(members.map(({ channel }, n) => channel.track({ n })))
  const entry = (n) => [`k${n}`, [{ n }]]
  await Promise.all(
    members.map((it) => it.events.until(() => Object.keys(present(it)).length === 50, 'all fifty')),
  )
  await Promise.all(members.slice(0, 25).map(({ channel }) => channel.untrack()))
  const left = Object.fromEntries(Array.from({ length: 25 }, (_, n) => entry(n + 25)))
  const sorted = (it) => Object.fromEntries(Object.entries(present(it)).sort(([a], [b]) => Number(a.slice(1)) - Number(b.slice(1))))
  await Promise.all(members.map((it) => it.events.until(() => isDeepStrictEqual(sorted(it), left), 'the second half')))
})

test('on a private topic the policies decide who may track and who may read presence', async () => {
  const config = { private: true }
  const ana = await member(await client('supabase-js 2.119'), 'hall', 'ana', config)
  const ben = await member(await client('realtime-js 2.10', 'BEN'), 'hall', 'ben', config)
  assert.equal(await ana.channel.track({ is: 'seen' }), 'ok')
  assert.equal(await ben.channel.track({ is: 'seen' }), 'ok')
  await agree([ana, ben], { ana: [{ is: 'seen' }], ben: [{ is: 'seen' }] }, 'both')

  const looking = await member(await client('supabase-js 2.119'), 'window', 'ana', config)
  const service = await clientFor(server, mint(server, { role: 'service_role' }))
  open.push(Object.assign(service, { closing: () => service.removeAllChannels() }))
  const shown = await member(service, 'window', 'service', config)
  assert.equal(await looking.channel.track({ is: 'refused' }), 'error')
  assert.equal(await shown.channel.track({ is: 'shown' }), 'ok')
  await agree([looking, shown], { service: [{ is: 'shown' }] }, 'only who may')
})

test('a presence key that looks like a row change works like any other', async () => {
  const ids = await member(await client('supabase-js 2.119'), 'keys', 'ids')
  assert.equal(await ids.channel.track({ n: 1 }), 'ok')
  const late = await Promise.all(KINDS.map(async (kind) => member(await client(kind), 'keys', kind)))
  await agree([ids, ...late], { ids: [{ n: 1 }] }, 'the state at the join')
  assert.equal(await late[0].channel.track({ n: 2 }), 'ok')
  await agree([ids, ...late], { ids: [{ n: 1 }], [KINDS[0]]: [{ n: 2 }] }, 'the diff')
})

test('a refused track is reported, and the channel stays open', async () => {
  const { channel } = await member(await client('supabase-js 2.119'), 'refused', 'constructor')
  assert.equal(await channel.track({}), 'error')
  assert.equal(channel.state, 'joined')
})
