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
 * Wraps a storage that is loaded when it is first used. After `wipe`, it reads and writes nothing
 * until `open`, so operations that are still pending when the user signs out store nothing. Without
 * a storage, or as long as it cannot be loaded, nothing is stored, and data exists only in memory.
 */
export function sessionStorageOf(load: (() => Promise<ChatStorage>) | null): SessionStorage {
  let session: object | null = {}
  let loading: Promise<ChatStorage | null> | null = null
  const storage = async () => (loading ??= load?.().catch(() => (loading = null)) ?? null)
  /** Returns null if the session has ended in the meantime. */
  const run = async <T>(operation: (storage: ChatStorage) => Promise<T>): Promise<T | null> => {
    const begun = session
    const loaded = await storage()
    const isCurrent = () => begun !== null && begun === session
    const result = loaded && isCurrent() ? await operation(loaded) : null
    return isCurrent() ? result : null
  }
  return {
    open: () => void (session ??= {}),
    all: async (shelf) => (await run((loaded) => loaded.all<never>(shelf))) ?? [],
    put: (...entry) => run((loaded) => loaded.put(...entry)),
    delete: (...entry) => run((loaded) => loaded.delete(...entry)),
    async wipe() {
      session = null
      await (await storage())?.wipe()
    },
  }
}
