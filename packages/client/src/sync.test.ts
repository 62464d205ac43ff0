import { describe, expect, test } from 'vitest'
import { syncPage } from '../test/fixtures'
import { chatError, ok, refused } from './errors'
import type { Input } from './inputs'
import { SyncEngine } from './sync'
import { FakeClock, settled } from './testing'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

function engineOf(cursor?: string) {
  const clock = new FakeClock()
  const requests: {
    since: string | undefined
    wait: number | undefined
    answer(result: Result<wire.SyncPage>): Promise<void>
  }[] = []
  const applied: Input[] = []
  const errors: ChatError[] = []
  const engine = new SyncEngine(
    {
      clock,
      fetch: (since, { wait }) =>
        new Promise((resolve) => {
          requests.push({
            since,
            wait,
            answer: async (result) => {
              resolve(result)
              await settled()
            },
          })
        }),
      apply: (input) => applied.push(input),
      onError: (error) => errors.push(error),
    },
    cursor,
  )
  engine.start()
  return { engine, clock, requests, applied, errors }
}

const page = (cursor: string, has_more = false) => ok(syncPage({ cursor, has_more }))
const error = (status: number, code: ChatError['code'] = 'internal', retryAfter: number | null = null) =>
  refused<wire.SyncPage>(chatError(code, 'Refused', { status, retryAfter }))

test('a first load requests all pages, and later requests start from the last cursor', async () => {
  const { engine, requests, applied } = engineOf()
  const loaded = engine.request()
  await requests[0]!.answer(page('a', true))
  await requests[1]!.answer(page('b'))
  expect((await loaded).error).toBeNull()
  void engine.request()
  await requests[2]!.answer(page('c'))
  expect(requests.map(({ since }) => since)).toEqual([undefined, 'a', 'b'])
  expect(applied.map((input) => input.type === 'synced' && input.isFirstLoad)).toEqual([true, true, false])
})

test('calls during a request share one further request', async () => {
  const { engine, requests } = engineOf('a')
  const first = engine.request()
  const later = [engine.request(), engine.request(), engine.request()]
  expect(requests).toHaveLength(1)
  await requests[0]!.answer(page('b'))
  await first
  expect(requests).toHaveLength(2)
  await requests[1]!.answer(page('c'))
  await Promise.all(later)
  expect(requests).toHaveLength(2)
})

test('calls of `requestSoon` within a tenth of a second share one request', async () => {
  const { engine, clock, requests } = engineOf('a')
  engine.requestSoon()
  await clock.advance(99)
  engine.requestSoon()
  expect(requests).toHaveLength(0)
  await clock.advance(1)
  expect(requests).toHaveLength(1)
  expect(clock.waiting).toBe(0)
})

test('an expired cursor discards everything and loads it again', async () => {
  const { engine, requests, applied } = engineOf('old')
  void engine.request()
  await requests[0]!.answer(error(410, 'resync_required'))
  await requests[1]!.answer(page('new'))
  expect(requests[1]!.since).toBeUndefined()
  expect(applied.map(({ type }) => type)).toEqual(['forget', 'synced'])
  expect(engine.position).toBe('new')
})

describe('failures', () => {
  test('are retried after growing pauses, or after the time that the server requests', async () => {
    const { engine, clock, requests, errors } = engineOf('a')
    void engine.request()
    for (const [failure, pause] of [
      [error(0, 'network'), 1_000],
      [error(503), 2_000],
      [error(429, 'rate_limited', 7), 7_000],
    ] as const) {
      const before = requests.length
      await requests.at(-1)!.answer(failure)
      await clock.advance(pause - 1)
      expect(requests).toHaveLength(before)
      await clock.advance(1)
      expect(requests).toHaveLength(before + 1)
    }
    expect(errors).toHaveLength(3)
  })

  test('are returned if a retry cannot succeed', async () => {
    const { engine, requests } = engineOf('a')
    const result = engine.request()
    await requests[0]!.answer(error(401, 'unauthorized'))
    expect((await result).error?.status).toBe(401)
  })

  test('are not retried after the client stops', async () => {
    const { engine, clock, requests } = engineOf('a')
    const result = engine.request()
    await requests[0]!.answer(error(503))
    engine.stop()
    expect((await result).error?.code).toBe('aborted')
    expect(clock.waiting).toBe(0)
  })
})

test('a page for a cursor that another tab has passed is not applied', async () => {
  const { engine, requests, applied } = engineOf('a')
  void engine.request()
  engine.moveTo('c')
  await requests[0]!.answer(page('b'))
  expect(applied).toEqual([])
  expect(engine.position).toBe('c')
})
