// The session's token. All requests share the token and its refresh.

export type AccessToken = (options?: { force: boolean }) => Promise<string | null>

export class Token {
  readonly #source: AccessToken | undefined
  #current: string | null = null
  #refreshing: Promise<string | null> | null = null

  constructor(source: AccessToken | undefined) {
    this.#source = source
  }

  /** False if the session cookie identifies the user. */
  get isUsed(): boolean {
    return this.#source !== undefined
  }

  /** Sets a token that the application has refreshed. */
  set(token: string | null): void {
    this.#current = token
  }

  /** The last known token, for requests that cannot wait. */
  get last(): string | null {
    return this.#current
  }

  /** Asks the application each time, because it has the token in memory and refreshes it itself. */
  async get(): Promise<string | null> {
    if (!this.#source) return null
    if (this.#refreshing) return this.#refreshing
    return (this.#current = await this.#source())
  }

  /**
   * Replaces a token that was refused. Requests that were refused with the same token wait for the
   * same refresh; requests with an older token get the current one.
   */
  async replace(refused: string | null): Promise<string | null> {
    const source = this.#source
    if (!source) return null
    if (this.#current !== null && this.#current !== refused) return this.#current
    this.#refreshing ??= source({ force: true })
      .then((token) => (this.#current = token))
      .finally(() => (this.#refreshing = null))
    return this.#refreshing
  }
}
