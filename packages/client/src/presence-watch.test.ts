import { expect, test } from 'vitest'
import { chatError, ok, refused } from './errors'
import { PresenceWatch } from './presence-watch'
import { settled } from './testing'
import type * as wire from './wire'

const ids = (length: number) => Array.from({ length }, (_, index) => `user${index}`)
const rowOf = (user_id: string) => ({ user_id, status: 'online' }) as wire.Presence

function watchOf() {
  const server = { isReachable: true }
  const requests: (readonly string[])[] = []
  const known = new Set<string>()
  const watch = new PresenceWatch(
    async (userIds) => {
      requests.push(userIds)
      return server.isReachable ? ok(userIds.map(rowOf)) : refused(chatError('network', 'unreachable'))
    },
    ({ user_id }) => known.add(user_id),
  )
  return { server, requests, known, watch, sizes: () => requests.map(({ length }) => length) }
}

test('more users than a request may name are loaded with several requests', async () => {
  const { watch, known, sizes } = watchOf()
  watch.watch(ids(450))
  await settled()
  expect(sizes()).toEqual([200, 200, 50])
  expect([...known]).toEqual(ids(450))
})

test('after a reconnect, all watched users and partners are loaded, each once', async () => {
  const { watch, requests, sizes } = watchOf()
  watch.watch(ids(150))
  watch.refresh(ids(401))
  await settled()
  expect(sizes()).toEqual([150, 150])
  watch.refresh(ids(401))
  await settled()
  expect(sizes().slice(2)).toEqual([200, 200, 1])
  expect(requests.slice(2).flat()).toEqual(ids(401))
})

test('after a failure, the remaining requests are not sent', async () => {
  const { watch, server, sizes } = watchOf()
  server.isReachable = false
  watch.watch(ids(450))
  await settled()
  expect(sizes()).toEqual([200])
})

test('without watched users, no request is sent', async () => {
  const { watch, requests } = watchOf()
  watch.watch([])
  watch.refresh([])
  await settled()
  expect(requests).toEqual([])
})
