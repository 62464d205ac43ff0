// Storage that survives a reload. `idb-storage.ts` implements it with IndexedDB.

export type Shelf = 'outbox' | 'drafts' | 'recent'

export interface ChatStorage {
  all<T>(shelf: Shelf): Promise<(readonly [key: string, value: T])[]>
  put(shelf: Shelf, key: string, value: unknown): Promise<unknown>
  delete(shelf: Shelf, key: string): Promise<unknown>
  /** Deletes all data of this user. */
  wipe(): Promise<void>
}

/** Storage that is closed when the user signs out. */
export interface SessionStorage extends ChatStorage {
  /** Opens the storage for a new session. */
  open(): void
}

/**
 * Wraps a storage so that, after `wipe`, it reads and writes nothing until `open`. Operations that
 * are still pending when the user signs out therefore store nothing.
 */
export function sessionStorageOf(storage: ChatStorage): SessionStorage {
  let session: object | null = {}
  return {
    open: () => void (session ??= {}),
    async all(shelf) {
      const begun = session
      const found = await storage.all<never>(shelf)
      return begun && begun === session ? found : []
    },
    put: async (shelf, key, value) => session && storage.put(shelf, key, value),
    delete: async (shelf, key) => session && storage.delete(shelf, key),
    wipe() {
      session = null
      return storage.wipe()
    },
  }
}

/** Storage that is loaded when it is first used. As long as it cannot be loaded, memory. */
export function laterStorage(load: () => Promise<ChatStorage>): ChatStorage {
  const memory = memoryStorage()
  let loaded: Promise<ChatStorage> | null = null
  const storage = () =>
    (loaded ??= load().catch(() => {
      loaded = null
      return memory
    }))
  return {
    all: async (shelf) => (await storage()).all(shelf),
    put: async (...entry) => (await storage()).put(...entry),
    delete: async (...entry) => (await storage()).delete(...entry),
    wipe: async () => (await storage()).wipe(),
  }
}

/** Creates storage in memory, for `persist: false`, tests, and browsers that refuse storage. */
export function memoryStorage(): ChatStorage {
  const shelves = new Map<Shelf, Map<string, unknown>>()
  const shelf = (name: Shelf) => shelves.get(name) ?? shelves.set(name, new Map()).get(name)!
  return {
    all: async <T>(name: Shelf) => [...shelf(name)] as [string, T][],
    put: async (name, key, value) => void shelf(name).set(key, structuredClone(value)),
    delete: async (name, key) => void shelf(name).delete(key),
    wipe: async () => shelves.clear(),
  }
}
