import { describe, expect, test } from 'vitest'
import { syncPage } from '../test/fixtures'
import { Connection } from './connection'
import { chatError, ok, refused } from './errors'
import type { Input } from './inputs'
import { SyncEngine } from './sync'
import { FakeClock, FakePage, FakeSocket, settled } from './testing'
import type { ConnectionStatus, Result } from './types'
import type * as wire from './wire'

const USER = 'me'

function connectionOf({ hasSocket = true, load = async () => {} } = {}) {
  const clock = new FakeClock()
  const page = new FakePage()
  const socket = new FakeSocket()
  const states: ConnectionStatus[] = []
  const inputs: Input[] = []
  const server = {
    result: ok(syncPage()) as Result<wire.SyncPage> | Promise<Result<wire.SyncPage>>,
    syncs: 0,
    /** The functions that respond to waiting long polls. */
    polls: [] as ((result: Result<wire.SyncPage>) => void)[],
  }
  const sync = new SyncEngine({
    clock,
    fetch: (_, { wait, signal }) => {
      if (wait === undefined) {
        server.syncs += 1
        return Promise.resolve(server.result)
      }
      return new Promise((resolve) => {
        server.polls.push(resolve)
        signal?.addEventListener('abort', () => resolve(refused(chatError('aborted', 'Cancelled'))))
      })
    },
    apply: () => {},
    onError: () => {},
  })
  const token = { value: 'token1', next: 'token2' as string | null, replaced: [] as (string | null)[] }
  const connection = new Connection({
    clock,
    page,
    userId: USER,
    loadSocket: hasSocket ? () => load().then(() => socket) : null,
    sync,
    token: {
      get: async () => token.value,
      replace: async (refusedToken) => {
        token.replaced.push(refusedToken)
        return token.next
      },
    },
    onInput: (input) => inputs.push(input),
    onState: ({ status }) => states.push(status),
  })
  const goLive = async () => {
    await settled()
    socket.accept()
    socket.goLive(USER)
    await settled()
  }
  return { connection, clock, page, socket, states, inputs, server, token, goLive, beat: () => socket.beat() }
}

describe('on the way to live', () => {
  test('it waits for row changes, catches up, and only then is live', async () => {
    const { connection, socket, states, server } = connectionOf()
    connection.start()
    await settled()
    expect(socket.tokens).toEqual(['token1'])
    socket.accept()
    expect([...socket.channels.keys()]).toEqual([`user:${USER}`])
    await settled()
    expect(connection.status).toBe('joining')
    expect(server.syncs).toBe(0)
    socket.goLive(USER)
    await settled()
    expect(states).toEqual(['connecting', 'joining', 'catching_up', 'live'])
    expect(server.syncs).toBe(1)
  })

  test('an event that arrives before it is live is applied at once', async () => {
    const { connection, socket, inputs } = connectionOf()
    connection.start()
    await settled()
    socket.accept()
    socket.channels.get(`user:${USER}`)!.onInput({ type: 'event', name: 'unread.updated', payload: {} })
    expect(inputs).toHaveLength(1)
  })

  test('an attempt that takes too long is abandoned', async () => {
    const { connection, clock, socket } = connectionOf()
    connection.start()
    await clock.advance(10_000)
    expect(connection.status).toBe('reconnecting')
    await clock.advance(1_000)
    socket.accept()
    await clock.advance(20_000)
    expect(connection.status).toBe('reconnecting')
  })
})

describe('the code of the socket', () => {
  test('is not loaded before the start', async () => {
    let loads = 0
    const { connection } = connectionOf({ load: async () => void (loads += 1) })
    await settled()
    expect(loads).toBe(0)
    connection.start()
    expect(loads).toBe(1)
  })

  test('is loaded once for all attempts', async () => {
    let loads = 0
    const { connection, clock, socket } = connectionOf({ load: async () => void (loads += 1) })
    connection.start()
    await settled()
    socket.lose()
    await clock.advance(1_000)
    expect([loads, socket.opens]).toEqual([1, 2])
  })

  test('that cannot be loaded is a failed attempt, and is loaded by the next one', async () => {
    let isReachable = false
    const { connection, clock, socket } = connectionOf({
      load: async () => {
        if (!isReachable) throw new TypeError('no network')
      },
    })
    connection.start()
    await settled()
    expect(connection.status).toBe('reconnecting')
    connection.watch('conversation')()
    connection.setToken('token2')
    isReachable = true
    await clock.advance(1_000)
    expect(socket.isWanted).toBe(true)
  })

  test('that arrives after a stop opens nothing', async () => {
    let arrive = (): void => {}
    const { connection, socket } = connectionOf({ load: () => new Promise((resolve) => (arrive = resolve)) })
    connection.start()
    connection.stop()
    arrive()
    await settled()
    expect([socket.opens, connection.status]).toEqual([0, 'idle'])
  })
})

describe('when the connection breaks', () => {
  test('it retries after 1 and 2 seconds, then polls and tries the socket every minute', async () => {
    const { connection, clock, socket, server } = connectionOf()
    connection.start()
    await settled()
    socket.lose()
    expect(connection.status).toBe('reconnecting')
    await clock.advance(1_000)
    socket.lose()
    await clock.advance(1_999)
    expect(socket.opens).toBe(2)
    await clock.advance(1)
    socket.lose()
    await settled()
    expect(connection.status).toBe('polling')
    expect(server.polls).toHaveLength(1)
    server.polls[0]!(ok(syncPage()))
    await settled()
    expect(server.polls).toHaveLength(2)
    await clock.advance(60_000)
    expect(socket.opens).toBe(4)
    socket.lose()
    expect(connection.status).toBe('polling')
    await clock.advance(60_000)
    socket.accept()
    expect(connection.status).toBe('joining')
    socket.goLive(USER)
    await settled()
    expect(connection.status).toBe('live')
  })

  test('it retries at once when the network or the page returns, or when the user requests it', async () => {
    for (const signal of ['network', 'attention', 'click'] as const) {
      const { connection, socket, page, goLive } = connectionOf()
      connection.start()
      await goLive()
      socket.lose()
      expect(connection.status).toBe('reconnecting')
      if (signal === 'click') connection.reconnect()
      else page.signal(signal)
      await settled()
      expect(socket.opens, signal).toBe(2)
      await goLive()
      expect(connection.status).toBe('live')
    }
  })

  test('it reconnects when nothing was received for two heartbeat intervals', async () => {
    const { connection, clock, socket, beat, goLive } = connectionOf()
    connection.start()
    await goLive()
    await clock.advance(25_000)
    beat()
    expect(socket.heartbeats).toBe(1)
    socket.receive()
    await clock.advance(25_000)
    beat()
    await clock.advance(25_001)
    expect(connection.status).toBe('live')
    beat()
    expect(connection.status).toBe('reconnecting')
  })

  test('it checks the connection when the page returns', async () => {
    const { connection, clock, socket, page, server, goLive } = connectionOf()
    connection.start()
    await goLive()
    page.signal('return')
    expect(socket.heartbeats).toBe(1)
    await settled()
    expect(server.syncs).toBe(2)
    await clock.advance(5_000)
    expect(connection.status).toBe('reconnecting')
  })

  test('the pauses start over after it was live', async () => {
    const { connection, clock, socket, goLive } = connectionOf()
    connection.start()
    await settled()
    socket.lose()
    await clock.advance(1_000)
    await goLive()
    socket.lose()
    await clock.advance(1_000)
    expect(socket.opens).toBe(3)
  })
})

test('without a network, it waits and runs no timer', async () => {
  const { connection, clock, page, socket, goLive } = connectionOf()
  connection.start()
  await goLive()
  page.set({ isOnline: false })
  expect(connection.status).toBe('offline')
  expect(clock.waiting).toBe(0)
  page.set({ isOnline: true })
  await settled()
  expect(socket.opens).toBe(2)
})

describe('the token', () => {
  test('a new token is sent to the channels, and the system message that follows causes a `/sync`', async () => {
    const { connection, socket, server, goLive } = connectionOf()
    connection.start()
    await goLive()
    connection.setToken('token2')
    expect(socket.tokens).toEqual(['token1', 'token2'])
    socket.goLive(USER)
    await settled()
    expect(server.syncs).toBe(2)
    expect(connection.status).toBe('live')
  })

  test('an expired token is replaced, and the channel is joined again on the same socket', async () => {
    const { connection, socket, token, goLive } = connectionOf()
    connection.start()
    await goLive()
    const channel = socket.channels.get(`user:${USER}`)!
    socket.channels.clear()
    channel.onClosed('CLOSED')
    await settled()
    expect(token.replaced).toEqual(['token1'])
    expect(socket.tokens).toEqual(['token1', 'token2'])
    socket.goLive(USER)
    await settled()
    expect(connection.status).toBe('live')
    expect(socket.opens).toBe(1)
  })

  test('a token that expires during the catch-up is replaced, and the client is live only after another catch-up', async () => {
    const { connection, clock, socket, states, server } = connectionOf()
    let answer: (result: Result<wire.SyncPage>) => void = () => {}
    server.result = new Promise((resolve) => (answer = resolve))
    connection.start()
    await settled()
    socket.accept()
    socket.goLive(USER)
    await settled()
    expect(connection.status).toBe('catching_up')
    const channel = socket.channels.get(`user:${USER}`)!
    socket.channels.clear()
    channel.onClosed('CLOSED')
    await settled()
    server.result = ok(syncPage())
    answer(server.result)
    await settled()
    // The earlier response may lack changes from the time without a channel.
    expect(connection.status).toBe('joining')
    socket.goLive(USER)
    await settled()
    expect(connection.status).toBe('live')
    expect(server.syncs).toBe(2)
    await clock.advance(20_000)
    expect(states).not.toContain('reconnecting')
    expect(socket.opens).toBe(1)
  })

  test('the channel is joined again even if the heartbeat has already sent the new token', async () => {
    const { connection, socket, token, states, goLive, beat } = connectionOf()
    connection.start()
    await goLive()
    const channel = socket.channels.get(`user:${USER}`)!
    socket.channels.clear()
    token.value = 'token2'
    beat()
    channel.onClosed('CLOSED')
    await settled()
    socket.goLive(USER)
    await settled()
    expect(states).not.toContain('reconnecting')
    expect(connection.status).toBe('live')
    expect(socket.opens).toBe(1)
  })

  test('a refused token signs out, and the client continues with a new one', async () => {
    const { connection, clock, socket, states, goLive } = connectionOf()
    connection.start()
    await goLive()
    connection.signedOut(chatError('token_expired', 'Expired', { status: 401 }))
    expect(connection.status).toBe('signed_out')
    expect(clock.waiting).toBe(0)
    connection.setToken('token2')
    await goLive()
    expect(states.at(-1)).toBe('live')
    expect(socket.opens).toBe(2)
  })
})

test('when row changes may have been missed, a `/sync` is requested', async () => {
  const { connection, socket, server, goLive } = connectionOf()
  connection.start()
  await goLive()
  socket.channels.get(`user:${USER}`)!.onSystem({ isLive: false, text: 'Changes may have been missed' })
  await settled()
  expect(server.syncs).toBe(2)
})

test('displayed conversations have a channel, even after a reconnect', async () => {
  const { connection, clock, socket, goLive } = connectionOf()
  connection.start()
  await goLive()
  const leave = [connection.watch('a'), connection.watch('a')]
  expect([...socket.channels.keys()]).toContain('conversation:a')
  socket.lose()
  await clock.advance(1_000)
  await goLive()
  expect([...socket.channels.keys()]).toContain('conversation:a')
  leave[0]!()
  expect([...socket.channels.keys()]).toContain('conversation:a')
  leave[1]!()
  expect([...socket.channels.keys()]).not.toContain('conversation:a')
})

test('without a socket address it polls, and a failure is retried', async () => {
  const { connection, clock, server } = connectionOf({ hasSocket: false })
  connection.start()
  await settled()
  expect(connection.status).toBe('polling')
  server.polls[0]!(refused(chatError('network', 'No network')))
  await settled()
  expect(connection.status).toBe('reconnecting')
  await clock.advance(1_000)
  expect(connection.status).toBe('polling')
})

test('without any response from the server, the socket is retried and the status is never `polling`', async () => {
  const { connection, clock, socket, server, states, goLive } = connectionOf()
  connection.start()
  await goLive()
  server.result = refused(chatError('network', 'No network'))
  for (const pause of [1_000, 2_000, 10_000, 30_000, 30_000]) {
    socket.lose()
    await settled()
    expect(connection.status).toBe('reconnecting')
    await clock.advance(pause)
  }
  expect(states).not.toContain('polling')
  expect(socket.opens).toBe(6)
})

test('stopping leaves no timer, listener or channel', async () => {
  const { connection, clock, page, socket, goLive } = connectionOf()
  connection.start()
  await goLive()
  connection.stop()
  expect([clock.waiting, page.listenerCount, socket.channels.size, socket.isWanted]).toEqual([0, 0, 0, false])
})
