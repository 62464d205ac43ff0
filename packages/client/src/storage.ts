// What survives a reload. `idb-storage.ts` keeps it in the browser's database.

export type Shelf = 'outbox' | 'drafts' | 'recent'

export interface ChatStorage {
  all<T>(shelf: Shelf): Promise<(readonly [key: string, value: T])[]>
  put(shelf: Shelf, key: string, value: unknown): Promise<void>
  delete(shelf: Shelf, key: string): Promise<void>
  /** Deletes everything of this user. */
  wipe(): Promise<void>
}

/** Keeps everything until the page is closed: for `persist: false`, tests, and browsers that refuse storage. */
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
