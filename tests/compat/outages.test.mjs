// Many channels, large transactions, and the behaviour of supabase-js when the database or the
// server fails.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { clientFor, database, freePort, Inbox, mint, postgres, serve, startServer, subscribe } from './support.mjs'

let server
let db
const open = []

const id = (name) => server.env[`USER_ID_${name}`]
const token = (name) => server.env[`USER_TOKEN_${name}`]

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create table public.rows(id int primary key, owner uuid, kind text);
    alter table public.rows enable row level security;
    create policy own on public.rows for select to authenticated using (owner = (select auth.uid()));
    grant select on public.rows to authenticated;
    alter publication supabase_realtime add table public.rows;
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.removeAllChannels()))
  await db.end()
  assert.equal(await server.stop(), 0)
})

async function client(name, where = server) {
  const made = await clientFor(where, token(name))
  open.push(made)
  return made
}

async function listen(made, topic, binding = {}, options = undefined) {
  const changes = new Inbox()
  const channel = made.channel(topic, options)
  channel.on('postgres_changes', { event: '*', schema: 'public', table: 'rows', ...binding }, (change) =>
    changes.push(change.new.id),
  )
  return { channel, changes, ...(await subscribe(channel)) }
}

const live = ({ system }, times = 1) =>
  system.until((items) => items.filter(({ status }) => status === 'ok').length >= times, 'the word that changes are live')

test('a hundred channels of one socket join simultaneously, each with its filter', async () => {
  const ana = await client('ANA')
  const channels = await Promise.all(
    Array.from({ length: 100 }, (_, n) => listen(ana, `room ${n}`, { filter: `kind=eq.room ${n}` })),
  )
  await db.query(`insert into public.rows select 100 + n, $1, 'room ' || n from generate_series(0, 99) n`, [id('ANA')])
  await Promise.all(channels.map(({ changes }) => changes.until((ids) => ids.length > 0, 'its row')))
  assert.deepEqual(channels.map(({ changes }) => changes.items), channels.map((_, n) => [100 + n]))
  await ana.removeAllChannels()
})

test('a transaction of 20,000 rows arrives completely and in order', async () => {
  const ana = await client('ANA')
  const { changes, statuses } = await listen(ana, 'large', { event: 'INSERT' })
  await db.query(`insert into public.rows select 10000 + n, $1, repeat('k', 200) from generate_series(1, 20000) n`, [
    id('ANA'),
  ])
  await changes.until((ids) => ids.length === 20_000, 'every row')
  assert.ok(changes.items.every((row, n) => row === 10_001 + n), 'in order')
  assert.deepEqual(statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
  await ana.removeAllChannels()
})

test('a join can wait until changes are live', async () => {
  const ana = await client('ANA')
  const options = { config: { postgres_changes_options: { wait: true, timeout: 5000 } } }
  const { changes } = await listen(ana, 'waits', {}, options)
  await db.query('insert into public.rows values (1, $1)', [id('ANA')])
  await changes.until((ids) => ids.includes(1), 'the row after SUBSCRIBED')
  const statuses = new Inbox()
  ana
    .channel('waits in vain', options)
    .on('postgres_changes', { event: '*', schema: 'public', table: 'nothing' }, () => {})
    .subscribe((status, error) => statuses.push({ status, error: error?.message }))
  const refused = await statuses.find(({ status }) => status === 'CHANNEL_ERROR', 'the refusal')
  assert.match(refused.error, /^RealtimeDisabledForConfiguration: Unable to subscribe to changes with given parameters/)
  await ana.removeAllChannels()
})

test('policies decide about private channels, and a client that joins without its token succeeds on the second attempt', async () => {
  await db.query(`
    create policy "open rooms" on realtime.messages for select to authenticated
      using (realtime.topic() like 'open:%' and extension in ('broadcast', 'presence') and auth.uid() is not null)`)
  const ana = await client('ANA')
  const { changes } = await listen(ana, 'open:1', {}, { config: { private: true } })
  await db.query('insert into public.rows values (2, $1)', [id('ANA')])
  await changes.until((ids) => ids.includes(2), 'a row on a private channel')
  // If the client is created and subscribed in one tick, supabase-js sends its first join without a
  // token.
  const hasty = createClient(server.url, server.env.ANON_KEY, {
    accessToken: async () => token('ANA'),
    realtime: { transport: WebSocket },
  })
  open.push(hasty)
  const statuses = new Inbox()
  hasty.channel('open:2', { config: { private: true } }).subscribe((status) => statuses.push(status))
  await statuses.find((status) => status === 'SUBSCRIBED', 'SUBSCRIBED')
  const service = await clientFor(server, mint(server, { role: 'service_role' }))
  open.push(service)
  await subscribe(service.channel('closed', { config: { private: true } }))
  await Promise.all([ana, hasty, service].map((made) => made.removeAllChannels()))
})

test('a restart of the database is reported, and no change is missed', async () => {
  const ana = await client('ANA')
  const channel = await listen(ana, 'restart')
  await live(channel)
  const control = await postgres(db)
  control('restart')
  db = await database(server)
  await db.query('insert into public.rows values (3, $1)', [id('ANA')])
  await live(channel, 2)
  await channel.changes.until((ids) => ids.includes(3), 'what was committed meanwhile')
  await db.query('insert into public.rows values (4, $1)', [id('ANA')])
  await channel.changes.until((ids) => ids.includes(4), 'what was committed afterwards')
  assert.deepEqual(channel.changes.items, [3, 4])
  assert.ok(channel.system.items.some(({ status, message }) => status === 'error' && /^Changes are interrupted/.test(message)))
  assert.deepEqual(channel.statuses.items.map(({ status }) => status), ['SUBSCRIBED'])
  await ana.removeAllChannels()
})

test('supabase-js reconnects to a restarted server', async (t) => {
  const port = await freePort()
  let beside = await serve(server, port)
  // A server that still runs would keep a failed test run from ending.
  t.after(() => beside.stop())
  const ana = await client('ANA', { ...server, url: `http://127.0.0.1:${port}` })
  const channel = await listen(ana, 'comes back')
  await live(channel)
  assert.equal(await beside.stop(), 0)
  const left = await channel.statuses.find(({ status }) => status === 'CHANNEL_ERROR', 'CHANNEL_ERROR')
  assert.equal(left.error, 'socket closed: 1012 (Server is restarting)')
  beside = await serve(server, port)
  await channel.statuses.until((items) => items.filter(({ status }) => status === 'SUBSCRIBED').length === 2, 'SUBSCRIBED again')
  await live(channel, 2)
  await db.query('insert into public.rows values (5, $1)', [id('ANA')])
  await channel.changes.until((ids) => ids.includes(5), 'a row after the restart')
  await ana.removeAllChannels()
  assert.equal(await beside.stop(), 0)
})
