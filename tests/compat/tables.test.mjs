// Row changes for every kind of table, filter, role and schema change, as supabase-js reports them.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { clientFor, database, Inbox, mint, startServer, subscribe } from './support.mjs'

let server
let db
let ana
let marks
let marked = 0

const id = (name) => server.env[`USER_ID_${name}`]
const token = (name) => server.env[`USER_TOKEN_${name}`]

before(async () => {
  server = await startServer()
  db = await database(server)
  await db.query(`
    create table public.marks(id int primary key);
    create table public.kinds(
      id int primary key, t text, n numeric, i8 bigint, b boolean, d date, ts timestamptz, a text[], u uuid, r real,
      ch char(3), iv interval, by bytea, tm time, j jsonb);
    alter table public.kinds replica identity full;
    create table public.keyless(x int);
    create table public.pairs(a int, b text, c text, primary key (a, b));
    create schema "My Schema";
    create table "My Schema"."Mixed Case"("Id" int primary key, "Some Col" text);
    create table public.parts(id int, k text, primary key (id, k)) partition by list (k);
    create table public.parts_a partition of public.parts for values in ('a');
    create table public.large(id int primary key, small text, big text);
    alter table public.large alter column big set storage external;
    create table public.made(id int primary key, n int, twice int generated always as (n * 2) stored);
    create table public.altered(id int primary key, kind text, body text);
    grant usage on schema "My Schema" to anon, authenticated;
    grant select on public.marks, public.kinds, public.keyless, public.pairs, "My Schema"."Mixed Case", public.parts,
      public.parts_a, public.large, public.made, public.altered to anon, authenticated, service_role;
    alter publication supabase_realtime add table public.marks, public.kinds, public.keyless, public.pairs,
      "My Schema"."Mixed Case", public.parts, public.large, public.made, public.altered;
  `)
  ana = await clientFor(server, token('ANA'))
  ;[marks] = (await listen(ana, 'marks', { table: 'marks' })).changes
})

after(async () => {
  await ana.removeAllChannels()
  await db.end()
  assert.equal(await server.stop(), 0)
})

/** Joins with these bindings and collects events. Resolves with the first system message. */
async function listen(client, topic, ...bindings) {
  const changes = bindings.map(() => new Inbox())
  const channel = client.channel(topic)
  bindings.forEach((binding, n) =>
    channel.on('postgres_changes', { event: '*', schema: 'public', ...binding }, changes[n].push),
  )
  const { system, statuses } = await subscribe(channel)
  await system.until((items) => items.length > 0, 'the first system message')
  return { channel, changes, system, statuses }
}

/** Waits until all earlier commits have been delivered to Ana. */
async function settled() {
  marked += 1
  const mark = marked
  await db.query('insert into public.marks values ($1)', [mark])
  await marks.find((change) => change.new.id === mark, 'the mark')
}

test('filters with every operator select the expected rows', async () => {
  const accepted = [
    ['t=eq.a', [1]],
    ['t=neq.a', [2, 3, 4, 6]],
    ['t=not.eq.a', [2, 3, 4, 6]],
    ['t=eq.', [4]],
    ['t=eq.""', [4]],
    ['t=eq."a,b"', [2]],
    ['t=eq."quo\\"te"', [6]],
    ['t=in.("a,b",c)', [2, 3]],
    ['t=not.in.(a,c)', [2, 4, 6]],
    ['t=like.%a%', [1, 2]],
    ['t=ilike.A%', [1, 2]],
    ['t=match.^a$', [1]],
    ['t=imatch.^A', [1, 2]],
    ['t=isdistinct.a', [2, 3, 4, 5, 6]],
    ['t=not.isdistinct.a', [1]],
    ['n=gt.1.5', [2]],
    ['n=lte.1.50', [1, 3]],
    ['i8=in.(9007199254740993,5)', [1, 2]],
    ['b=is.true', [1]],
    ['b=eq.false', [2]],
    ['b=not.is.null', [1, 2]],
    ['b=is.unknown', [3, 4, 5, 6]],
    ['d=gte.2026-01-02', [2]],
    ['ts=lt.2026-01-01T00:00:00Z', [1]],
    ['a=eq."{x,y}"', [1]],
    ['u=eq.00000000-0000-0000-0000-0000000000AB', [1]],
    ['r=gt.1', [1]],
    ['ch=eq.x', [1]],
    ['iv=eq.1 day', [1, 2]],
    ['by=eq.\\x6869', [1]],
    ['tm=gt.10:00', [1]],
    ['j=eq."{\\"k\\": 1}"', [1]],
    [' t=eq.a , b=is.true ', [1]],
    ['t=eq.nobody', []],
  ]
  const channels = []
  for (const [filter] of accepted) {
    const channel = await listen(ana, `filter ${filter}`, { table: 'kinds', filter })
    assert.equal(channel.system.items[0].status, 'ok', `${filter}: ${channel.system.items[0].message}`)
    channels.push(channel)
  }
  await db.query(`
    insert into public.kinds values
      (1, 'a', 1, 9007199254740993, true, '2026-01-01', '2025-12-31 23:00:00+00', '{x,y}',
       '00000000-0000-0000-0000-0000000000ab', 2.5, 'x', '24:00:00', 'hi', '12:00', '{"k":1}'),
      (2, 'a,b', 2, 5, false, '2026-01-02', '2026-01-01 02:00:00+02', '{}', null, 1, 'yy', '1 day', null, null, '{}');
    insert into public.kinds(id, t, n) values (3, 'c', 1.50), (4, '', null), (5, null, null), (6, 'quo"te', null)`)
  await settled()
  accepted.forEach(([filter, expected], n) => {
    assert.deepEqual(channels[n].changes[0].items.map((change) => change.new.id), expected, filter)
  })
  await Promise.all(channels.map(({ channel }) => ana.removeChannel(channel)))
})

test('invalid filters are refused with a reason', async () => {
  for (const [filter, reason] of [
    ['t=eq.a,b', 'Error parsing `filter` params: ["b"]'],
    ['t=cs.{a}', 'Error parsing `filter` params: ["cs", "{a}"]'],
    ['t=eq.a,', 'Error parsing `filter` params: filter must not contain empty segments (check for extra commas)'],
    ['t=in.a', 'Error parsing `filter` params: `in` filter value must be wrapped by parentheses'],
    ['n=eq.x', /invalid input syntax for type numeric: "x"/],
    ['t=is.true', /is true filter requires a boolean column, got text/],
    ['n=like.1', /operator like requires a text-compatible column type, got numeric/],
    ['t=match.(', /invalid regular expression for match filter/],
  ]) {
    const { system, channel } = await listen(ana, `refused ${filter}`, { table: 'kinds', filter })
    assert.equal(system.items[0].status, 'error', filter)
    if (typeof reason === 'string') assert.equal(system.items[0].message, reason)
    else assert.match(system.items[0].message, reason)
    await ana.removeChannel(channel)
  }
})

test('each binding of a channel receives the changes that it requested', async () => {
  const { changes, channel } = await listen(
    ana,
    'many: zoë 💬 "q"',
    { table: 'pairs', event: 'insert' },
    { table: '*' },
    { schema: '*', table: '*' },
    { table: 'pairs', filter: 'a=eq.1', select: ['c'] },
    { table: 'pairs', event: 'Delete' },
    { schema: 'My Schema', table: 'Mixed Case', filter: 'Some Col=eq.x y' },
  )
  await db.query(`insert into public.pairs values (1, 'k', 'v'), (2, 'k', 'v')`)
  await db.query(`insert into "My Schema"."Mixed Case" values (1, 'x y'), (2, 'z')`)
  await db.query(`update public.pairs set c = 'w' where a = 1`)
  await db.query('delete from public.pairs where a = 1')
  await settled()
  const kinds = changes.map(({ items }) =>
    items.filter(({ table }) => table !== 'marks').map(({ eventType, table }) => `${eventType[0]} ${table}`).join(),
  )
  assert.deepEqual(kinds, [
    'I pairs,I pairs',
    'I pairs,I pairs,U pairs,D pairs',
    'I pairs,I pairs,I Mixed Case,I Mixed Case,U pairs,D pairs',
    'I pairs,U pairs,D pairs',
    'D pairs',
    'I Mixed Case',
  ])
  assert.deepEqual(changes[3].items.map((change) => [change.new, change.old]), [
    [{ a: 1, b: 'k', c: 'v' }, {}],
    [{ a: 1, b: 'k', c: 'w' }, { a: 1, b: 'k' }],
    [{}, { a: 1, b: 'k' }],
  ])
  await ana.removeChannel(channel)
})

test('several sockets can join the same topic, and one socket can use different filters', async () => {
  const others = await Promise.all([{}, { vsn: '1.0.0' }].map((realtime) => clientFor(server, token('ANA'), realtime)))
  const same = await Promise.all([ana, ...others].map((client) => listen(client, 'same', { table: 'pairs' })))
  const even = await listen(ana, 'even', { table: 'pairs', filter: 'c=eq.even' })
  const odd = await listen(ana, 'odd', { table: 'pairs', filter: 'c=eq.odd' })
  await db.query(`insert into public.pairs values (10, '', 'even'), (11, '', 'odd'), (12, '', 'even')`)
  await Promise.all(same.map(({ changes }) => changes[0].until((items) => items.length === 3, 'all rows')))
  await settled()
  assert.deepEqual(even.changes[0].items.map((change) => change.new.a), [10, 12])
  assert.deepEqual(odd.changes[0].items.map((change) => change.new.a), [11])
  await Promise.all(others.map((client) => client.removeAllChannels()))
  await Promise.all([same[0], even, odd].map(({ channel }) => ana.removeChannel(channel)))
})

test('row changes are correct for old rows, unchanged large values, rows that are too large, tables without a key, and partitions', async () => {
  const { changes, channel } = await listen(
    ana, 'shapes', { table: 'kinds' }, { table: 'large' }, { table: 'keyless' }, { table: 'parts_a' },
  )
  const [kinds, large, keyless, parts] = changes
  await db.query(`insert into public.kinds(id, t) values (50, 'x')`)
  await db.query(`update public.kinds set t = 'y', id = 51 where id = 50`)
  await db.query('delete from public.kinds where id = 51')
  await db.query('truncate public.kinds')
  await db.query(`insert into public.large values (1, 's', repeat('x', 100000))`)
  await db.query(`update public.large set small = 't'`)
  await db.query(`insert into public.large values (2, 's', repeat('y', 1100000))`)
  await db.query('insert into public.keyless values (1)')
  await db.query(`insert into public.parts values (1, 'a')`)
  await settled()
  assert.deepEqual(kinds.items.map(({ eventType }) => eventType), ['INSERT', 'UPDATE', 'DELETE'])
  assert.deepEqual([kinds.items[1].old.id, kinds.items[1].old.t, kinds.items[1].new.id], [50, 'x', 51])
  assert.deepEqual([kinds.items[2].old.t, kinds.items[2].new], ['y', {}])
  assert.equal(large.items[0].new.big.length, 100_000)
  assert.deepEqual(large.items[1].new, { id: 1, small: 't' })
  assert.equal(large.items[1].old.id, 1)
  assert.deepEqual(large.items[2].errors, ['Error 413: Payload Too Large'])
  assert.deepEqual(large.items[2].new, { id: 2, small: 's' })
  assert.deepEqual(keyless.items[0].errors, ['Error 400: Bad Request, no primary key'])
  assert.deepEqual(parts.items.map((change) => change.new), [{ id: 1, k: 'a' }])
  await ana.removeChannel(channel)
})

test('generated columns are in the record and in filters', async () => {
  const { changes, channel } = await listen(ana, 'made', { table: 'made', filter: 'twice=eq.4' })
  await db.query('insert into public.made values (1, 1), (2, 2)')
  await db.query('update public.made set n = 2')
  await settled()
  assert.deepEqual(changes[0].items.map(({ eventType, new: row, old }) => [eventType, row, old]), [
    ['INSERT', { id: 2, n: 2, twice: 4 }, {}],
    ['UPDATE', { id: 1, n: 2, twice: 4 }, { id: 1 }],
    ['UPDATE', { id: 2, n: 2, twice: 4 }, { id: 2 }],
  ])
  await ana.removeChannel(channel)
})

test('a table may be altered while it is subscribed to', async () => {
  const { changes, channel } = await listen(
    ana, 'altered', { table: 'altered' }, { table: 'altered', filter: 'kind=eq.a' }, { schema: '*', table: '*' },
  )
  let number = 0
  for (const [statement, columns] of [
    ['select 1', ['body', 'id', 'kind']],
    ['alter table public.altered add column extra int default 7', ['body', 'extra', 'id', 'kind']],
    ['alter table public.altered rename body to text', ['extra', 'id', 'kind', 'text']],
    ['alter table public.altered drop column text', ['extra', 'id', 'kind']],
    ['alter table public.altered alter column kind type varchar(20)', ['extra', 'id', 'kind']],
    ['alter publication supabase_realtime drop table public.altered', null],
    ['alter publication supabase_realtime add table public.altered', ['extra', 'id', 'kind']],
    [
      `drop table public.altered; create table public.altered(id int primary key, kind text);
       grant select on public.altered to authenticated; alter publication supabase_realtime add table public.altered`,
      ['id', 'kind'],
    ],
  ]) {
    number += 1
    await db.query(statement)
    await db.query(`insert into public.altered(id, kind) values ($1, 'a')`, [number])
    await settled()
    for (const [binding, { items }] of changes.entries()) {
      const seen = items.filter((change) => change.table === 'altered' && change.new.id === number)
      const keys = seen.map((change) => Object.keys(change.new).sort())
      assert.deepEqual(keys, columns ? [columns] : [], `binding ${binding} after ${statement}`)
    }
  }
  await ana.removeChannel(channel)
})

test('subscribers of every role receive rows, and a nonexistent role is refused', async () => {
  await db.query('create role compat_reader nologin')
  try {
    await db.query(`
      grant compat_reader to current_user; grant usage on schema public to compat_reader;
      grant select on public.pairs to compat_reader;
    `)
    let row = 100
    for (const [claims, status, message] of [
      [{ role: 'service_role' }, 'ok', /./],
      [{ role: 'anon' }, 'ok', /./],
      [{ role: 'compat_reader' }, 'ok', /./],
      [{}, 'ok', /./],
      [{ sub: id('ANA'), name: `Zoë "q" ' \\ 💬`, app_metadata: { "k'": ['"'] } }, 'ok', /./],
      [{ exp: Date.now() / 1000 + 100.25 }, 'ok', /./],
      [{ role: 'nobody "x"' }, 'error', /ERROR 42704 \(undefined_object\) role "nobody "x"" does not exist$/],
    ]) {
      const client = await clientFor(server, mint(server, claims))
      const { changes, system } = await listen(client, 'role', { table: 'pairs' })
      assert.equal(system.items[0].status, status, JSON.stringify([claims, system.items]))
      assert.match(system.items[0].message, message)
      if (status === 'ok') {
        row += 1
        await db.query(`insert into public.pairs values ($1, 'role')`, [row])
        await changes[0].find((change) => change.new.a === row, `a row for ${JSON.stringify(claims)}`)
      }
      await client.removeAllChannels()
    }
  } finally {
    await db.query('drop owned by compat_reader; drop role compat_reader')
  }
})
