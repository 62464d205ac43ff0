// What the official clients show of who is present, old and new in one channel.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import WebSocket from 'ws'
import { clientFor, Inbox, startServer, subscribe } from './support.mjs'

const { RealtimeClient: OldRealtimeClient } = createRequire(import.meta.url)('realtime-js-2.10')

let server
const open = []

before(async () => {
  server = await startServer()
})

after(async () => {
  await Promise.all(open.map((client) => client.removeAllChannels?.() ?? client.disconnect()))
  assert.equal(await server.stop(), 0)
})

/** A channel that notes every callback of presence, and every state it leads to. */
class Watcher {
  events = new Inbox()
  states = new Inbox()

  constructor(channel) {
    this.channel = channel
    channel
      .on('presence', { event: 'join' }, ({ key, newPresences }) => this.#note('join', key, newPresences))
      .on('presence', { event: 'leave' }, ({ key, leftPresences }) => this.#note('leave', key, leftPresences))
      .on('presence', { event: 'sync' }, () => this.states.push(this.state()))
  }

  #note(event, key, presences) {
    for (const { presence_ref: ref, ...rest } of presences) this.events.push({ event, key, ref, ...rest })
  }

  /** Key to what is tracked, without references. */
  state() {
    const entries = Object.entries(this.channel.presenceState())
    const plain = ({ presence_ref: _, ...rest }) => rest
    return Object.fromEntries(entries.map(([key, metas]) => [key, metas.map(plain)]))
  }

  async until(expected) {
    const text = JSON.stringify(sorted(expected))
    await this.states.until(() => JSON.stringify(sorted(this.state())) === text, `the state ${text}`)
  }

  /** No reference may come or go twice. */
  assertNothingTwice() {
    const seen = this.events.items.map(({ event, ref }) => `${event} ${ref}`)
    assert.equal(new Set(seen).size, seen.length, JSON.stringify(this.events.items))
  }
}

function sorted(state) {
  const entries = Object.entries(state).map(([key, metas]) => [key, metas.map((meta) => JSON.stringify(meta)).sort()])
  return Object.fromEntries(entries.sort(([left], [right]) => (left < right ? -1 : 1)))
}

async function newClient(vsn, transport = WebSocket) {
  const client = await clientFor(server, server.env.USER_TOKEN_ANA, { vsn, transport })
  open.push(client)
  return client
}

function oldClient() {
  const client = new OldRealtimeClient(`${server.url.replace('http', 'ws')}/realtime/v1`, {
    params: { apikey: server.env.ANON_KEY },
  })
  client.connect()
  open.push(client)
  return client
}

async function join(client, topic, key) {
  const channel = client.channel(topic, { config: { presence: { key } } })
  const watcher = new Watcher(channel)
  await subscribe(channel)
  return watcher
}

test('old and new clients see each other come, change and go, each thing once', async () => {
  const ana = await join(await newClient('2.0.0'), 'room', 'ana')
  const ben = await join(await newClient('1.0.0'), 'room', 'ben')
  const old = await join(oldClient(), 'room', 'old')
  const all = [ana, ben, old]
  assert.equal(await ana.channel.track({ at: 'desk' }), 'ok')
  assert.equal(await ben.channel.track({ n: 1 }), 'ok')
  assert.equal(await old.channel.track({}), 'ok')
  for (const watcher of all) await watcher.until({ ana: [{ at: 'desk' }], ben: [{ n: 1 }], old: [{}] })

  const phone = await join(await newClient('2.0.0'), 'room', 'ana')
  assert.equal(await phone.channel.track({ at: 'phone' }), 'ok')
  assert.equal(await ben.channel.track({ n: 2 }), 'ok')
  assert.equal(await ben.channel.track({ n: 2 }), 'ok')
  for (const watcher of [...all, phone]) {
    await watcher.until({ ana: [{ at: 'desk' }, { at: 'phone' }], ben: [{ n: 2 }], old: [{}] })
  }

  assert.equal(await old.channel.untrack(), 'ok')
  await phone.channel.unsubscribe()
  for (const watcher of all) await watcher.until({ ana: [{ at: 'desk' }], ben: [{ n: 2 }] })
  for (const watcher of [...all, phone]) watcher.assertNothingTwice()
  const ofBen = ana.events.items.filter(({ key }) => key === 'ben')
  assert.deepEqual(
    ofBen.map(({ event, n }) => [event, n]),
    [['join', 1], ['join', 2], ['leave', 1]],
  )
})

test('whoever loses the connection is gone, and back with what he tracks then', async () => {
  const watcher = await join(await newClient('2.0.0'), 'lost', 'watcher')
  const sockets = []
  class Transport extends WebSocket {
    constructor(...args) {
      super(...args)
      sockets.push(this)
    }
  }
  const client = await newClient('2.0.0', Transport)
  const lost = await join(client, 'lost', 'lost')
  assert.equal(await lost.channel.track({ n: 1 }), 'ok')
  await watcher.until({ lost: [{ n: 1 }] })
  for (const socket of sockets) socket.terminate()
  await watcher.until({})
  // The client joins again by itself; tracking again is the application's to do.
  await lost.states.until(() => JSON.stringify(lost.state()) === '{}', 'the state after the join')
  while ((await lost.channel.track({ n: 2 })) !== 'ok');
  await watcher.until({ lost: [{ n: 2 }] })
  watcher.assertNothingTwice()
})

test('the key that looks like a row change is shown as any other', async () => {
  const ids = await join(await newClient('2.0.0'), 'keys', 'ids')
  assert.equal(await ids.channel.track({ n: 1 }), 'ok')
  await ids.until({ ids: [{ n: 1 }] })
  const late = await join(await newClient('2.0.0'), 'keys', 'late')
  await late.until({ ids: [{ n: 1 }] })
  const older = await join(oldClient(), 'keys', 'older')
  await older.until({ ids: [{ n: 1 }] })
  assert.equal(await late.channel.track({ n: 2 }), 'ok')
  for (const watcher of [ids, late, older]) await watcher.until({ ids: [{ n: 1 }], late: [{ n: 2 }] })
})

test('a track that is refused says so, and the channel stays', async () => {
  const watcher = await join(await newClient('2.0.0'), 'refused', 'constructor')
  assert.equal(await watcher.channel.track({}), 'error')
  assert.equal(watcher.channel.state, 'joined')
})
