// Broadcasts from the database, and stored broadcasts of clients.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CLIENTS, database, Inbox, isBinary, startServer, subscribe } from './support.mjs'

let server
let db
const open = []

const KINDS = Object.keys(CLIENTS)

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create policy "rooms are open" on realtime.messages for select to authenticated
      using (realtime.topic() like 'topic:%');
    create table public.things(id text primary key, value text, topic text);
    create function public.tell() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
      perform realtime.broadcast_changes(coalesce(new.topic, old.topic), tg_op, tg_op, tg_table_name, tg_table_schema, new, old, tg_level);
      return null;
    end $$;
    create trigger tell after insert or update or delete on public.things for each row execute function public.tell();
  `)
})

after(async () => {
  await Promise.all(open.map((client) => client.closing()))
  await db.end()
  const code = await server.stop()
  assert.equal(code, 0, server.log().slice(-2500))
})

async function client(kind, name = 'ANA') {
  const made = await CLIENTS[kind](server, server.env[`USER_TOKEN_${name}`])
  open.push(made)
  return made
}

async function member(kind, topic, config = {}) {
  const channel = (await client(kind)).channel(topic, { config: { private: true, ...config } })
  const heard = new Inbox()
  channel.on('broadcast', { event: '*' }, heard.push)
  return { kind, channel, heard, ...(await subscribe(channel)) }
}

const everybody = (topic, config) => Promise.all(KINDS.map((kind) => member(kind, topic, config)))

const send = (payload, event, topic, isPrivate = true) =>
  db.query('select realtime.send($1, $2, $3, $4)', [payload, event, topic, isPrivate])

const sendBytes = (bytes, event, topic, isPrivate = true) =>
  db.query('select realtime.send_binary($1, $2, $3, $4)', [Buffer.from(bytes), event, topic, isPrivate])

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

test('a message that a client stores arrives once, and is replayed to later members', async () => {
  await db.query(`
    create policy "people talk" on realtime.messages for insert to authenticated
      with check (realtime.topic() like 'topic:persist%' and extension = 'broadcast')`)
  const current = 'supabase-js 2.119'
  const [sender, other] = await Promise.all(
    ['topic:persist', 'topic:persist'].map((topic) => member(current, topic, { broadcast: { ack: true } })),
  )
  const say = (event, persist) => sender.channel.send({ type: 'broadcast', event, payload: { event }, persist })
  assert.equal(await say('kept', true), 'ok')
  assert.equal(await say('kept for a minute', { ttl: 60 }), 'ok')
  assert.equal(await say('fleeting'), 'ok')
  assert.deepEqual(await sender.channel.httpSend('over http', { event: 'over http' }, { persist: { ttl: 60 } }), {
    success: true,
  })
  // A broadcast from the database arrives after everything that precedes it in the WAL.
  await send({ is: 'a mark' }, 'mark', 'topic:persist')
  await other.heard.find(({ event }) => event === 'mark', 'the mark')
  const events = (inbox) => inbox.items.map(({ event }) => event)
  assert.deepEqual(events(other.heard), ['kept', 'kept for a minute', 'fleeting', 'over http', 'mark'])
  await sender.heard.find(({ event }) => event === 'mark', 'the mark at its sender')
  assert.deepEqual(events(sender.heard), ['over http', 'mark'], 'not its own, which came over the socket')

  const late = await member(current, 'topic:persist', { broadcast: { replay: { since: 0 } } })
  await late.heard.until((items) => items.length === 4, 'the replay')
  assert.deepEqual(events(late.heard), ['kept', 'kept for a minute', 'over http', 'mark'])
  const ids = (inbox) => inbox.items.filter(({ meta }) => meta).map(({ meta }) => meta.id)
  assert.deepEqual(ids(late.heard), ids(other.heard))
  assert.ok(late.heard.items.every(({ meta }) => meta.replayed === true))

  assert.equal(await say('for ever', { ttl: 1e9 }), '`persist` must have a ttl from 1 to 259200 seconds')
  await assert.rejects(
    sender.channel.httpSend('for ever', {}, { persist: { ttl: 1e9 } }),
    /persist: must have a ttl from 1 to 259200 seconds/,
  )
  await db.query(`drop policy "people talk" on realtime.messages`)
  assert.equal(
    await say('forbidden', true),
    'You do not have permissions to store messages of this Channel topic: topic:persist',
  )
  await assert.rejects(sender.channel.httpSend('forbidden', {}, { persist: true }), /Unauthorized/)
  await send({ is: 'another' }, 'mark 2', 'topic:persist')
  await other.heard.find(({ event }) => event === 'mark 2', 'another mark')
  assert.equal(other.heard.items.length, 6, 'nothing of what was refused')
})

test('realtime.send reaches every client of its topic, with the id of its row', async () => {
  const members = await everybody('topic:send')
  await send({ text: 'héllo 😀', n: [1, null] }, 'e', 'topic:send')
  await send({ id: 'its own' }, 'e', 'topic:send')
  for (const { kind, heard } of members) {
    await heard.until((items) => items.length === 2, `both at ${kind}`)
    const [first, second] = heard.items
    assert.deepEqual([first.type, first.event], ['broadcast', 'e'])
    assert.match(first.meta.id, UUID)
    assert.deepEqual(first.payload, { text: 'héllo 😀', n: [1, null], id: first.meta.id })
    assert.deepEqual(second.payload, { id: 'its own' })
  }
})

test('messages to the public topic do not reach the private one', async () => {
  const inside = await member('supabase-js 2.119', 'topic:both')
  const outside = await member('supabase-js 2.119', 'topic:both', { private: false })
  await send({ is: 'public' }, 'e', 'topic:both', false)
  await send({ is: 'private' }, 'e', 'topic:both')
  await inside.heard.until((items) => items.length > 0, 'the private one')
  await outside.heard.until((items) => items.length > 0, 'the public one')
  await send({ is: 'a mark' }, 'e', 'topic:both', false)
  await outside.heard.until((items) => items.length > 1, 'the mark')
  assert.deepEqual(inside.heard.items.map(({ payload }) => payload.is), ['private'])
  assert.deepEqual(outside.heard.items.map(({ payload }) => payload.is), ['public', 'a mark'])
})

test('realtime.send_binary delivers bytes unchanged to clients that support them', async () => {
  const members = await everybody('topic:bytes')
  const bytes = Uint8Array.from({ length: 5_000 }, (_, n) => (n * 7) % 256)
  await sendBytes(bytes, 'bytes', 'topic:bytes')
  await send({ is: 'a mark' }, 'mark', 'topic:bytes')
  for (const { kind, heard } of members) {
    await heard.find(({ event }) => event === 'mark', `the mark at ${kind}`)
    const found = heard.items.find(({ event }) => event === 'bytes')
    if (isBinary(kind)) {
      assert.deepEqual(new Uint8Array(found.payload), bytes)
      assert.match(found.meta.id, UUID)
    } else assert.equal(found, undefined, kind)
  }
})

test('realtime.broadcast_changes reports committed rows, and nothing that was rolled back', async () => {
  const members = await everybody('topic:things')
  await db.query(`begin; insert into public.things values ('lost', 'x', 'topic:things'); rollback`)
  await db.query(`insert into public.things values ('1', 'a', 'topic:things')`)
  await db.query(`update public.things set value = 'b' where id = '1'`)
  await db.query(`delete from public.things where id = '1'`)
  const row = (value) => ({ id: '1', value, topic: 'topic:things' })
  for (const { kind, heard } of members) {
    await heard.until((items) => items.length === 3, `all three at ${kind}`)
    const told = heard.items.map(({ event, payload }) => [event, payload.operation, payload.record, payload.old_record])
    assert.deepEqual(told, [
      ['INSERT', 'INSERT', row('a'), null],
      ['UPDATE', 'UPDATE', row('b'), row('a')],
      ['DELETE', 'DELETE', null, row('b')],
    ])
    assert.ok(heard.items.every(({ payload }) => payload.schema === 'public' && payload.table === 'things'))
  }
})

test('a thousand messages of one transaction arrive in order', async () => {
  const { heard } = await member('supabase-js 2.119', 'topic:many')
  await db.query(`select realtime.send(jsonb_build_object('n', n), 'n', 'topic:many') from generate_series(1, 1000) n`)
  await heard.until((items) => items.length === 1_000, 'all of them')
  assert.deepEqual(heard.items.map(({ payload }) => payload.n), Array.from({ length: 1_000 }, (_, n) => n + 1))
})

test('a client can ask for a notice when broadcasts from the database are live', async () => {
  const { system } = await member('supabase-js 2.119', 'topic:live', { broadcast: { replication_ready: true } })
  const live = await system.find(({ message }) => message === 'Replication connection established', 'the word')
  assert.deepEqual([live.extension, live.status], ['system', 'ok'])
})

test('replay delivers the newest earlier messages, in order, once', async () => {
  const before = Date.now() - 1_000
  const topic = 'topic:replay'
  const witness = await member('supabase-js 2.119', topic)
  for (let n = 1; n <= 5; n += 1) await send({ n }, 'n', topic)
  await sendBytes([1, 2, 255], 'bytes', topic)
  await witness.heard.until((items) => items.length === 6, 'all of them, live')
  const ids = witness.heard.items.map(({ meta }) => meta.id)

  const replay = (limit) => ({ broadcast: { replay: { since: before, ...(limit && { limit }) } } })
  const [all, two] = [await member('supabase-js 2.119', topic, replay()), await member('supabase-js 2.119', topic, replay(2))]
  await all.heard.until((items) => items.length >= 6, 'all of them, replayed')
  await two.heard.until((items) => items.length >= 2, 'the newest two')
  assert.deepEqual(all.heard.items.map(({ meta }) => meta), ids.map((id) => ({ replayed: true, id })))
  assert.deepEqual(all.heard.items.slice(0, 5).map(({ payload }) => payload.n), [1, 2, 3, 4, 5])
  assert.deepEqual(new Uint8Array(all.heard.items[5].payload), Uint8Array.of(1, 2, 255))
  assert.deepEqual(two.heard.items.map(({ meta }) => meta.id), ids.slice(-2))

  await send({ n: 'live' }, 'n', topic)
  for (const { heard } of [all, two]) {
    const live = await heard.find(({ payload }) => payload.n === 'live', 'the live one')
    assert.deepEqual(Object.keys(live.meta), ['id'])
    assert.equal(heard.items.at(-1), live)
  }
  const nothing = await member('supabase-js 2.119', topic, { broadcast: { replay: { since: Date.now() + 60_000 } } })
  await send({ n: 'mark' }, 'n', topic)
  await nothing.heard.until((items) => items.length > 0, 'the mark')
  assert.deepEqual(nothing.heard.items.map(({ payload }) => payload.n), ['mark'])
})

test('replay for an old client omits binary messages', async () => {
  const since = Date.now() - 1_000
  const topic = 'topic:old replay'
  await send({ n: 1 }, 'n', topic)
  await sendBytes([1], 'bytes', topic)
  await send({ n: 2 }, 'n', topic)
  const { heard } = await member('supabase-js 2.119 with vsn 1.0.0', topic, { broadcast: { replay: { since } } })
  await heard.until((items) => items.length >= 2, 'both')
  assert.deepEqual(heard.items.map(({ event, payload }) => [event, payload.n]), [['n', 1], ['n', 2]])
})

test('an invalid replay is refused with a reason', async () => {
  const made = await client('supabase-js 2.119')
  const statuses = new Inbox()
  made
    .channel('topic:senseless', { config: { private: true, broadcast: { replay: { since: 'yesterday' } } } })
    .subscribe((status, error) => statuses.push({ status, error: error?.message }))
  const refused = await statuses.find(({ status }) => status === 'CHANNEL_ERROR', 'the refusal')
  assert.equal(refused.error, 'UnableToReplayMessages: Replay params are not valid')
})
