import 'fake-indexeddb/auto'
import { describe, expect, test } from 'vitest'
import { message } from '../test/fixtures'
import { chatError, ok, refused } from './errors'
import { idbStorage } from './idb-storage'
import { Outbox, type Outgoing } from './outbox'
import type { ChatStorage } from './storage'
import { FakeClock, settled, memoryStorage } from './testing'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

type Answer = Result<wire.Message>

/** Creates an outbox. The test responds to its requests. */
function outboxOf({
  storage = memoryStorage(),
  clock = new FakeClock(),
}: { storage?: ChatStorage; clock?: FakeClock } = {}) {
  const requests: { message: Outgoing; at: number; answer: (answer: Answer) => Promise<void> }[] = []
  const failed: ChatError[] = []
  const outbox = new Outbox({
    clock,
    storage,
    send: (sending) =>
      new Promise((resolve) => {
        requests.push({
          message: sending,
          at: clock.now(),
          answer: async (answer) => {
            resolve(answer)
            await settled()
          },
        })
      }),
    onChange: () => {},
    onSent: () => {},
    onFailed: (_, error) => failed.push(error),
  })
  let count = 0
  const add = (conversationId = 'a') => {
    count += 1
    const key = `key${count}`
    outbox.add({ key, conversationId, content: key, messageType: 'text', replyToId: null, metadata: {}, file: null })
    return key
  }
  return { outbox, clock, requests, failed, add, keys: () => requests.map((request) => request.message.key) }
}

const stored: Answer = ok(message({ seq: 1 }))
const refusal = (status: number, fields: Partial<ChatError> = {}): Answer =>
  refused(chatError('internal', 'Refused', { status, ...fields }))
const unreachable: Answer = refused(chatError('network', 'No network'))

describe('the order', () => {
  test('within a conversation, a message waits for the one before it', async () => {
    const { outbox, requests, add, keys } = outboxOf()
    outbox.resume()
    add()
    add()
    add('b')
    expect(keys()).toEqual(['key1', 'key3'])
    expect(outbox.of('a').map(({ state }) => state)).toEqual(['sending', 'pending'])
    await requests[0]!.answer(stored)
    expect(keys()).toEqual(['key1', 'key3', 'key2'])
  })

  test('a failed message does not hold up the others', async () => {
    const { outbox, requests, failed, add, keys } = outboxOf()
    outbox.resume()
    add()
    add()
    await requests[0]!.answer(refusal(422))
    expect(failed).toHaveLength(1)
    expect(keys()).toEqual(['key1', 'key2'])
    expect(outbox.of('a').map(({ state }) => state)).toEqual(['failed', 'sending'])
  })

  test('a retried message keeps its key and goes to the end', async () => {
    const { outbox, requests, add, keys } = outboxOf()
    outbox.resume()
    add()
    await requests[0]!.answer(refusal(403))
    add()
    outbox.retry('key1')
    await requests[1]!.answer(stored)
    expect(keys()).toEqual(['key1', 'key2', 'key1'])
  })
})

describe('the rate', () => {
  test('at most four messages in any second', async () => {
    const { outbox, requests, clock, add } = outboxOf()
    outbox.resume()
    for (let index = 0; index < 12; index += 1) add(`conversation${index}`)
    for (let tick = 0; tick < 40; tick += 1) {
      await clock.advance(100)
      for (const { answer } of requests) await answer(stored)
    }
    expect(requests).toHaveLength(12)
    for (const { at } of requests)
      expect(requests.filter((other) => other.at >= at && other.at < at + 1_000).length).toBeLessThanOrEqual(4)
  })

  test('all conversations obey `Retry-After`, to the second', async () => {
    const { outbox, requests, clock, add } = outboxOf()
    outbox.resume()
    add()
    await requests[0]!.answer(refusal(429, { retryAfter: 7 }))
    add('b')
    await clock.advance(6_999)
    expect(requests).toHaveLength(1)
    await clock.advance(1)
    expect(requests.map(({ message: sent }) => sent.key)).toEqual(['key1', 'key1', 'key2'])
  })
})

describe('failures', () => {
  test('are retried after growing pauses, for a day', async () => {
    const { outbox, requests, clock, failed, add } = outboxOf()
    outbox.resume()
    add()
    const pauses: number[] = []
    while (failed.length === 0) {
      const request = requests.at(-1)!
      await request.answer(requests.length % 2 === 0 ? unreachable : refusal(503))
      const before = requests.length
      while (requests.length === before && failed.length === 0) await clock.advance(1_000)
      pauses.push(clock.now() - request.at)
    }
    expect(pauses.slice(0, 6)).toEqual([1_000, 2_000, 5_000, 15_000, 60_000, 300_000])
    expect(failed[0]?.code).toBe('expired')
    expect(clock.now() - requests[0]!.at).toBeGreaterThan(24 * 3_600_000)
    expect(outbox.of('a')[0]?.state).toBe('failed')
  })

  test('are retried at once when the server responds again', async () => {
    const { outbox, requests, clock, add } = outboxOf()
    outbox.resume()
    add()
    for (const _ of [1, 2, 3, 4, 5]) {
      await requests.at(-1)!.answer(unreachable)
      await clock.advance(60_000)
    }
    const before = requests.length
    await requests.at(-1)!.answer(unreachable)
    outbox.resume(true)
    expect(requests).toHaveLength(before + 1)
  })

  test.each([
    ['a refused token', refusal(401)],
    ['a session of another user', refusal(403, { code: 'identity_mismatch' })],
  ])('%s stops all sending until the user signs in', async (_, signedOut) => {
    const { outbox, requests, add, clock } = outboxOf()
    outbox.resume()
    add()
    await requests[0]!.answer(signedOut)
    expect(outbox.of('a')[0]?.state).toBe('pending')
    await clock.advance(3_600_000)
    expect(requests).toHaveLength(1)
    outbox.resume()
    expect(requests).toHaveLength(2)
  })
})

test('a message that is discarded while it is in flight does not return', async () => {
  const { outbox, requests, failed, add } = outboxOf()
  outbox.resume()
  const key = add()
  outbox.discard(key)
  await requests[0]!.answer(refusal(422))
  expect(outbox.of('a')).toEqual([])
  expect(failed).toEqual([])
})

test.each([
  ['a refusal', refusal(422)],
  ['a failure', unreachable],
  ['a success', stored],
])('%s of a message that was forgotten in flight stores nothing', async (_, answer) => {
  const storage = memoryStorage()
  const { outbox, requests, failed, add } = outboxOf({ storage })
  outbox.resume()
  add()
  outbox.pause()
  outbox.forget()
  await storage.wipe()
  await requests[0]!.answer(answer)
  outbox.resume()
  expect([outbox.size, failed.length, requests.length]).toEqual([0, 0, 1])
  expect(await storage.all('outbox')).toEqual([])
})

test('a pause leaves no timer behind', async () => {
  const { outbox, requests, clock, add } = outboxOf()
  outbox.resume()
  add()
  await requests[0]!.answer(unreachable)
  expect(clock.waiting).toBe(1)
  outbox.discard('key1')
  outbox.pause()
  expect(clock.waiting).toBe(0)
})

for (const [name, open] of [
  ['memory', () => memoryStorage()],
  ['IndexedDB', () => idbStorage('user')],
] as const) {
  describe(`across reloads, in ${name}`, () => {
    test('unsent messages are sent in order, failed ones wait, and sent ones are gone', async () => {
      const storage = open()
      const first = outboxOf({ storage })
      first.outbox.resume()
      first.add()
      await first.requests[0]!.answer(stored)
      first.add()
      await first.requests[1]!.answer(refusal(403))
      first.add()
      first.add()
      // The messages are stored during the request. The page is closed before the request ends.
      await until(async () => (await storage.all('outbox')).length === 3)
      const second = outboxOf({ storage: name === 'memory' ? storage : open() })
      await second.outbox.restore()
      expect(second.outbox.of('a').map(({ key, state }) => [key, state])).toEqual([
        ['key2', 'failed'],
        ['key3', 'pending'],
        ['key4', 'pending'],
      ])
      second.outbox.resume()
      expect(second.keys()).toEqual(['key3'])
      await second.requests[0]!.answer(stored)
      expect(second.keys()).toEqual(['key3', 'key4'])
      await storage.wipe()
      expect(await storage.all('outbox')).toEqual([])
    })
  })
}

/**
 * Resolves when `test` returns true. Checks after each turn of the event loop, because the outbox
 * does not report when its writes are complete.
 */
async function until(test: () => Promise<boolean>): Promise<void> {
  while (!(await test())) await new Promise((resolve) => setImmediate(resolve))
}
