// Texts that are not sent yet: on this device at once, on the user's other devices after a pause.

import type { Cancel, Clock } from './clock'
import type { ChatStorage } from './storage'

const SAVE_MS = 800

export interface DraftsSettings {
  clock: Clock
  storage: ChatStorage
  /** Saves the text on the server. Returns whether it did. */
  save(conversationId: string, text: string): Promise<boolean>
  /**
   * A draft appeared, disappeared, or came to rest. Not for every letter: the list of conversations
   * would be built and rendered again with each key press.
   */
  onChange(conversationId: string): void
}

export class Drafts {
  readonly #settings: DraftsSettings
  /** Texts that the server does not have yet. */
  readonly #texts = new Map<string, string>()
  readonly #timers = new Map<string, Cancel>()

  constructor(settings: DraftsSettings) {
    this.#settings = settings
  }

  async restore(): Promise<void> {
    for (const [id, text] of await this.#settings.storage.all<string>('drafts')) {
      if (this.#texts.has(id)) continue
      this.#texts.set(id, text)
      this.#settings.onChange(id)
      this.#saveLater(id)
    }
  }

  get(conversationId: string): string | undefined {
    return this.#texts.get(conversationId)
  }

  set(conversationId: string, text: string): void {
    const before = this.#texts.get(conversationId)
    if (before === text) return
    this.#texts.set(conversationId, text)
    void this.#settings.storage.put('drafts', conversationId, text)
    if (!before || !text) this.#settings.onChange(conversationId)
    this.#saveLater(conversationId)
  }

  /** The text was sent. The server empties its draft by itself. */
  clear(conversationId: string): void {
    this.#timers.get(conversationId)?.()
    this.#timers.delete(conversationId)
    this.#forget(conversationId)
  }

  stop(): void {
    this.#timers.forEach((cancel) => cancel())
    this.#timers.clear()
  }

  /** The user signs out. */
  forget(): void {
    this.stop()
    this.#texts.clear()
  }

  #saveLater(id: string): void {
    this.#timers.get(id)?.()
    this.#timers.set(
      id,
      this.#settings.clock.after(SAVE_MS, () => void this.#save(id)),
    )
  }

  async #save(id: string): Promise<void> {
    this.#timers.delete(id)
    const text = this.#texts.get(id)
    if (text === undefined) return
    this.#settings.onChange(id)
    const isSaved = await this.#settings.save(id, text)
    // The user may have continued to type.
    if (isSaved && this.#texts.get(id) === text) this.#forget(id)
  }

  #forget(id: string): void {
    if (!this.#texts.delete(id)) return
    void this.#settings.storage.delete('drafts', id)
    this.#settings.onChange(id)
  }
}
