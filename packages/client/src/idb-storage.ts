import type { ChatStorage, Shelf } from './storage'

const SHELVES: readonly Shelf[] = ['outbox', 'drafts', 'recent']

/** Must be increased when the object stores change. */
const VERSION = 1

/**
 * Creates storage in IndexedDB, in one database per user, so that signing out deletes exactly that
 * user's data. If the browser refuses storage (private windows, full disks), nothing is stored.
 */
export function idbStorage(userId: string): ChatStorage {
  const name = `rapport:${userId}`
  let opened: Promise<IDBDatabase> | null = null

  const open = (): Promise<IDBDatabase> => {
    if (opened) return opened
    const request = indexedDB.open(name, VERSION)
    request.onupgradeneeded = () => SHELVES.forEach((shelf) => request.result.createObjectStore(shelf))
    opened = done(request)
    opened.then(
      (db) => {
        const forget = () => {
          db.close()
          opened = null
        }
        // Another tab is deleting the database, or the browser closed it. The next call opens it
        // again.
        db.onversionchange = forget
        db.onclose = forget
      },
      () => (opened = null),
    )
    return opened
  }
  const shelfOf = async (shelf: Shelf, mode: IDBTransactionMode) =>
    (await open()).transaction(shelf, mode).objectStore(shelf)

  return {
    async all<T>(shelf: Shelf) {
      try {
        const store = await shelfOf(shelf, 'readonly')
        const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())])
        return keys.map((key, index) => [String(key), values[index] as T] as const)
      } catch {
        return []
      }
    },
    async put(shelf, key, value) {
      await shelfOf(shelf, 'readwrite')
        .then((store) => done(store.put(value, key)))
        .catch(() => {})
    },
    async delete(shelf, key) {
      await shelfOf(shelf, 'readwrite')
        .then((store) => done(store.delete(key)))
        .catch(() => {})
    },
    async wipe() {
      // The stores are emptied first, because a frozen tab delays the deletion of the database.
      await Promise.all(SHELVES.map(async (shelf) => done((await shelfOf(shelf, 'readwrite')).clear())))
        .then(open)
        .then((db) => db.close())
        .catch(() => {})
      opened = null
      const request = indexedDB.deleteDatabase(name)
      await new Promise((resolve) => (request.onsuccess = request.onerror = request.onblocked = resolve))
    },
  }
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('The database refused.'))
  })
}
