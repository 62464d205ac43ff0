import { expect, test } from 'vitest'
import { Drafts } from './drafts'
import { FakeClock, settled, memoryStorage } from './testing'

function draftsOf(storage = memoryStorage()) {
  const clock = new FakeClock()
  const saved: string[] = []
  const changes: (string | undefined)[] = []
  const server = { isReachable: true }
  const drafts: Drafts = new Drafts({
    clock,
    storage,
    save: async (_, text) => {
      if (server.isReachable) saved.push(text)
      return server.isReachable
    },
    onChange: (id) => changes.push(drafts.get(id)),
  })
  return { clock, saved, server, drafts, storage, changes }
}

test('a text is stored on the device at once, and on the server after a pause', async () => {
  const { clock, saved, drafts, storage } = draftsOf()
  drafts.set('a', 'Hel')
  await clock.advance(500)
  drafts.set('a', 'Hello')
  expect(drafts.get('a')).toBe('Hello')
  expect(await storage.all('drafts')).toEqual([['a', 'Hello']])
  await clock.advance(799)
  expect(saved).toEqual([])
  await clock.advance(1)
  expect(saved).toEqual(['Hello'])
  expect(drafts.get('a')).toBeUndefined()
})

test('a text that is not saved on the server survives a reload', async () => {
  const first = draftsOf()
  first.server.isReachable = false
  first.drafts.set('a', 'Hello')
  await first.clock.advance(1_000)
  const second = draftsOf(first.storage)
  await second.drafts.restore()
  expect(second.drafts.get('a')).toBe('Hello')
  await second.clock.advance(800)
  expect(second.saved).toEqual(['Hello'])
})

test('sending a text removes its draft', async () => {
  const { clock, saved, drafts, storage } = draftsOf()
  drafts.set('a', 'Hello')
  drafts.clear('a')
  await settled()
  expect(await storage.all('drafts')).toEqual([])
  await clock.advance(5_000)
  expect(saved).toEqual([])
})

test('a draft is reported when it appears, stops changing or disappears, and not for each letter', async () => {
  const { clock, drafts, changes } = draftsOf()
  for (const text of ['H', 'He', 'Hel']) drafts.set('a', text)
  expect(changes).toEqual(['H'])
  await clock.advance(800)
  expect(changes).toEqual(['H', 'Hel', undefined])
  for (const text of ['Hell', 'Hello', '']) drafts.set('a', text)
  expect(changes.slice(3)).toEqual(['Hell', ''])
})
