// Unsent texts. They are stored on this device at once, and on the server after a pause, for the
// user's other devices.

import type { Cancel, Clock } from './clock'
import type { ChatStorage } from './storage'

/** The pause in typing after which a draft is saved on the server. */
const DRAFT_SAVE_MS = 800

export interface DraftsSettings {
  clock: Clock
  storage: ChatStorage
  /** Saves the text on the server. Returns whether that succeeded. */
  save(conversationId: string, text: string): Promise<boolean>
  /**
   * Called when a draft appears, disappears or stops changing. It is not called for every letter,
   * because the list of conversations would be built and rendered again with each key press.
   */
  onChange(conversationId: string): void
}

export class Drafts {
  readonly #settings: DraftsSettings
  /** Texts that are not saved on the server yet. */
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

  /** Removes the draft of a sent text. The server clears its own copy. */
  clear(conversationId: string): void {
    this.#timers.get(conversationId)?.()
    this.#timers.delete(conversationId)
    this.#forget(conversationId)
  }

  stop(): void {
    this.#timers.forEach((cancel) => cancel())
    this.#timers.clear()
  }

  /** Forgets all drafts when the user signs out. */
  forget(): void {
    this.stop()
    this.#texts.clear()
  }

  #saveLater(id: string): void {
    this.#timers.get(id)?.()
    this.#timers.set(
      id,
      this.#settings.clock.after(DRAFT_SAVE_MS, () => void this.#save(id)),
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
