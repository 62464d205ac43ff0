import 'fake-indexeddb/auto'
import { describe, expect, test } from 'vitest'
import { idbStorage } from './idb-storage'
import { sessionStorageOf } from './storage'
import { memoryStorage } from './testing'

describe.each([
  ['memory', () => memoryStorage()],
  ['IndexedDB', () => idbStorage('ana')],
])('storage of a session, in %s', (_, open) => {
  test('stores nothing after a wipe until it is opened', async () => {
    const inner = open()
    const storage = sessionStorageOf(async () => inner)
    await storage.put('drafts', 'c', 'before')
    expect(await storage.all('drafts')).toEqual([['c', 'before']])
    const wiped = storage.wipe()
    await storage.put('drafts', 'c', 'meanwhile')
    await wiped
    await storage.put('drafts', 'd', 'afterwards')
    expect(await inner.all('drafts')).toEqual([])
    storage.open()
    await storage.put('drafts', 'c', 'in the next session')
    expect(await inner.all('drafts')).toEqual([['c', 'in the next session']])
    await inner.wipe()
  })

  test('returns nothing if the session changed during the read', async () => {
    const storage = sessionStorageOf(async () => open())
    await storage.put('outbox', 'key', 'a message')
    const reading = storage.all('outbox')
    const wiped = storage.wipe()
    storage.open()
    expect(await reading).toEqual([])
    await wiped
  })
})

test('stores nothing until the storage can be loaded, and tries again', async () => {
  const inner = memoryStorage()
  await inner.put('drafts', 'c', 'of an earlier page')
  let isReachable = false
  const storage = sessionStorageOf(async () => {
    if (!isReachable) throw new TypeError('no network')
    return inner
  })
  await storage.put('outbox', 'key', 'a message')
  expect(await storage.all('drafts')).toEqual([])
  isReachable = true
  expect(await storage.all('drafts')).toEqual([['c', 'of an earlier page']])
  await storage.wipe()
  expect(await inner.all('drafts')).toEqual([])
})

test('without a storage, a session stores nothing', async () => {
  const storage = sessionStorageOf(null)
  await storage.put('outbox', 'key', 'a message')
  expect(await storage.all('outbox')).toEqual([])
  await storage.wipe()
})

describe('IndexedDB', () => {
  test('wipes a write that had already begun', async () => {
    const storage = sessionStorageOf(async () => idbStorage('ben'))
    const writing = storage.put('outbox', 'key', 'a message')
    await storage.wipe()
    await writing
    expect(await idbStorage('ben').all('outbox')).toEqual([])
    await idbStorage('ben').wipe()
  })

  test('does not create the database again for a deletion after a wipe', async () => {
    const storage = sessionStorageOf(async () => idbStorage('cleo'))
    await storage.put('drafts', 'c', 'text')
    await storage.wipe()
    await storage.delete('drafts', 'c')
    expect((await indexedDB.databases()).map(({ name }) => name)).not.toContain('rapport:cleo')
  })

  test('is empty after a wipe even if a frozen tab keeps the database open', async () => {
    const storage = idbStorage('dora')
    await storage.put('drafts', 'c', 'text')
    const frozen = await new Promise<IDBDatabase>((resolve) => {
      const request = indexedDB.open('rapport:dora')
      request.onsuccess = () => resolve(request.result)
    })
    await storage.wipe()
    const left = await new Promise((resolve) => {
      const request = frozen.transaction('drafts').objectStore('drafts').getAll()
      request.onsuccess = () => resolve(request.result)
    })
    expect(left).toEqual([])
    frozen.close()
  })
})
