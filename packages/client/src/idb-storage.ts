import { deleteDB, openDB, type IDBPDatabase } from 'idb'
import { memoryStorage, type ChatStorage, type Shelf } from './storage'

const SHELVES: readonly Shelf[] = ['outbox', 'drafts', 'recent']

/** One database per user, so that signing out deletes exactly that user's data. */
const nameOf = (userId: string): string => `rapport:${userId}`

/** Raised when the layout changes. */
const VERSION = 1

/**
 * Storage in IndexedDB. If the browser refuses it (private windows, full disks), the storage is
 * memory: chatting then works until the page is closed.
 */
export function idbStorage(userId: string): ChatStorage {
  const fallback = memoryStorage()
  let opened: Promise<IDBPDatabase | null> | null = null
  const open = (): Promise<IDBPDatabase | null> =>
    (opened ??= openDB(nameOf(userId), VERSION, {
      upgrade(db) {
        for (const shelf of SHELVES) db.createObjectStore(shelf)
      },
      // Another tab deletes the database, or the browser closed it. The next call opens it again.
      blocking: (_current, _blocked, event) => {
        ;(event.target as IDBDatabase).close()
        opened = null
      },
      terminated: () => (opened = null),
    }).catch(() => null))

  const use = async <T>(inDatabase: (db: IDBPDatabase) => Promise<T>, inMemory: () => Promise<T>): Promise<T> => {
    const db = await open()
    if (!db) return inMemory()
    return inDatabase(db).catch(inMemory)
  }

  return {
    all: <T>(shelf: Shelf) =>
      use(
        async (db) => {
          const [keys, values] = await Promise.all([db.getAllKeys(shelf), db.getAll(shelf)])
          return keys.map((key, index) => [String(key), values[index] as T] as const)
        },
        () => fallback.all<T>(shelf),
      ),
    put: (shelf, key, value) =>
      use(
        async (db) => void (await db.put(shelf, value, key)),
        () => fallback.put(shelf, key, value),
      ),
    delete: (shelf, key) =>
      use(
        (db) => db.delete(shelf, key),
        () => fallback.delete(shelf, key),
      ),
    async wipe() {
      const db = await open()
      db?.close()
      opened = null
      await fallback.wipe()
      if (db) await deleteDB(nameOf(userId))
    },
  }
}
