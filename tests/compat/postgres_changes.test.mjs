// What supabase-js requires from a subscription to row changes.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import WebSocket from 'ws'
import { clientFor, database, Inbox, mint, startServer, subscribe } from './support.mjs'

const { RealtimeClient: OldRealtimeClient } = createRequire(import.meta.url)('realtime-js-2.10')

let server
let db
const open = []

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create table public.notes(
      id bigint generated always as identity primary key,
      owner uuid not null, kind text, body text, tags text[], amount numeric, seen boolean,
      doc jsonb, at timestamptz, secret text);
    alter table public.notes enable row level security;
    create policy "people see their own notes" on public.notes for select to authenticated
      using (owner = (select auth.uid()));
    grant select (id, owner, kind, body, tags, amount, seen, doc, at) on public.notes to authenticated;
    alter publication supabase_realtime add table public.notes;
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.removeAllChannels?.() ?? client.disconnect()))
  await db.end()
  assert.equal(await server.stop(), 0)
})

const id = (name) => server.env[`USER_ID_${name}`]
const token = (name) => server.env[`USER_TOKEN_${name}`]

async function client(name, realtime) {
  const made = await clientFor(server, token(name), realtime)
  open.push(made)
  return made
}

async function insert(values) {
  const columns = Object.keys(values)
  const { rows } = await db.query(
    `insert into public.notes(${columns}) values (${columns.map((_, n) => `$${n + 1}`)}) returning id::int`,
    Object.values(values),
  )
  return rows[0].id
}

for (const vsn of ['1.0.0', '2.0.0']) {
  test(`a subscriber receives the events of its own rows only, in order, at each matching binding (vsn ${vsn})`, async () => {
    const ana = await client('ANA', { vsn })
    const [all, inserts, filtered] = [new Inbox(), new Inbox(), new Inbox()]
    const channel = ana
      .channel(`notes-${vsn}`)
      .on('postgres_changes', { event: '*', schema: 'public', table: 'notes' }, all.push)
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'notes' }, inserts.push)
      .on('postgres_changes', { event: '*', schema: 'public', table: 'notes', filter: 'kind=eq.b' }, filtered.push)
    const { system } = await subscribe(channel)
    await system.find(({ status }) => status === 'ok', 'the word that changes are live')

    const hidden = await insert({ owner: id('BEN'), kind: 'b', body: 'not for Ana' })
    const first = await insert({
      owner: id('ANA'), kind: 'a', body: 'héllo "quoted"', tags: ['x', 'y z'], amount: '12.50', seen: true,
      doc: { deep: [1, null] }, at: '2026-01-02T03:04:05.678Z', secret: 'never shown',
    })
    const second = await insert({ owner: id('ANA'), kind: 'b' })
    await db.query('update public.notes set body = $1 where id = $2', ['changed', first])
    await db.query('delete from public.notes where id = $1', [second])
    await all.until((items) => items.some(({ eventType }) => eventType === 'DELETE'), 'the last event')

    assert.deepEqual(all.items.map(({ eventType, new: now, old }) => [eventType, now.id ?? old.id]), [
      ['INSERT', first], ['INSERT', second], ['UPDATE', first], ['DELETE', second],
    ])
    assert.ok(!all.items.some(({ new: now }) => now.id === hidden))
    assert.deepEqual(inserts.items.map(({ new: now }) => now.id), [first, second])
    assert.deepEqual(filtered.items.map(({ eventType, new: now }) => [eventType, now.id]), [['INSERT', second]])
    const [row] = all.items
    assert.deepEqual(row.new, {
      id: first, owner: id('ANA'), kind: 'a', body: 'héllo "quoted"', tags: ['x', 'y z'], amount: 12.5,
      seen: true, doc: { deep: [1, null] }, at: '2026-01-02T03:04:05.678+00:00',
    })
    assert.equal(row.schema, 'public')
    assert.equal(row.table, 'notes')
    assert.match(row.commit_timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    assert.deepEqual(all.items[3].old, { id: second })
    await ana.removeChannel(channel)
  })
}

test('an invalid filter is reported, and the channel stays open', async () => {
  const ana = await client('ANA')
  const channel = ana
    .channel('bad-filter')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'notes', filter: 'nothere=eq.1' }, () => {})
  const { system } = await subscribe(channel)
  const error = await system.find(({ status }) => status === 'error', 'the reason')
  assert.match(error.message, /invalid column for filter nothere/)
  assert.equal(error.extension, 'postgres_changes')
  assert.equal(error.channel, 'bad-filter')
})

test('a subscription to a table that is not published is reported', async () => {
  const ana = await client('ANA')
  const channel = ana
    .channel('unpublished')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'no_such_table' }, () => {})
  const { system } = await subscribe(channel)
  const error = await system.find(({ status }) => status === 'error', 'the reason')
  assert.match(error.message, /^Unable to subscribe to changes with given parameters\. Please check Realtime is enabled/)
})

test('a refreshed token changes the visible rows without a rejoin', async () => {
  let current = token('ANA')
  const person = await clientFor(server, () => current)
  open.push(person)
  const seen = new Inbox()
  const channel = person
    .channel('refresh')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'notes' }, seen.push)
  const { system, statuses } = await subscribe(channel)
  await system.find(({ status }) => status === 'ok', 'live')
  current = token('BEN')
  await person.realtime.setAuth()
  await system.until((items) => items.filter(({ status }) => status === 'ok').length === 2, 'live again')
  await insert({ owner: id('ANA'), body: 'for Ana' })
  const wanted = await insert({ owner: id('BEN'), body: 'for Ben' })
  await seen.find(({ new: now }) => now.id === wanted, 'the row of the new identity')
  assert.equal(seen.items.length, 1)
  assert.deepEqual(statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
})

test('an expired token closes the channel but not the socket', async () => {
  const brief = mint(server, { sub: id('ANA'), exp: Math.floor(Date.now() / 1000) + 3 })
  let current = brief
  const person = await clientFor(server, () => current)
  open.push(person)
  const channel = person
    .channel('expiry')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'notes' }, () => {})
  const { system, statuses } = await subscribe(channel)
  await system.find(({ message }) => /^Token has expired \d+ seconds ago$/.test(message), 'the reason')
  await statuses.find(({ status }) => status === 'CLOSED', 'CLOSED')
  assert.equal(person.realtime.isConnected(), true)
})

test('a refused join reports its reason', async () => {
  const ana = await client('ANA')
  const statuses = new Inbox()
  ana.channel('x', { config: { private: true } }).subscribe((status, error) => statuses.push({ status, error: error?.message }))
  const refused = await statuses.find(({ status }) => status === 'CHANNEL_ERROR', 'the refusal')
  assert.match(refused.error, /Unauthorized: You do not have permissions to read from this Channel topic: x/)
})

test('realtime-js 2.10 works with version 1.0.0', async () => {
  const old = new OldRealtimeClient(`${server.url.replace('http', 'ws')}/realtime/v1`, {
    params: { apikey: server.env.ANON_KEY },
  })
  open.push(old)
  old.setAuth(token('ANA'))
  const [changes, synced, statuses] = [new Inbox(), new Inbox(), new Inbox()]
  const channel = old
    .channel('old-client')
    .on('postgres_changes', { event: '*', schema: 'public', table: 'notes' }, changes.push)
    .on('presence', { event: 'sync' }, () => synced.push(true))
  channel.subscribe((status, error) => statuses.push({ status, error: error?.message }))
  await statuses.find(({ status }) => status === 'SUBSCRIBED', 'SUBSCRIBED')
  await synced.find(Boolean, 'presence sync')
  const wanted = await insert({ owner: id('ANA'), body: 'to an old client' })
  const change = await changes.find(({ new: now }) => now.id === wanted, 'the row')
  assert.equal(change.new.body, 'to an old client')
  assert.equal(await channel.unsubscribe(), 'ok')
})

test('leaving a channel, joined or not, is harmless', async () => {
  const ana = await client('ANA')
  const channel = ana.channel('brief')
  await subscribe(channel)
  assert.equal(await ana.removeChannel(channel), 'ok')
  ana.channel('never joined')
  await ana.removeAllChannels()
  const again = ana.channel('brief')
  await subscribe(again)
})
