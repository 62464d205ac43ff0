// Signs in with the development sign-in of `rapport dev`, which has the API of Supabase Auth.

export interface DemoPerson {
  readonly id: string
  readonly email: string
  readonly name: string
  readonly role?: string
  readonly team?: string | null
  readonly team_name?: string | null
}

export interface People {
  readonly url: string
  readonly anon_key: string
  readonly password: string
  readonly people: readonly DemoPerson[]
}

interface Tokens {
  readonly access_token: string
  readonly refresh_token: string
}

let loading: Promise<People> | null = null

/**
 * Loads the users. The request is sent once, before rendering, because everything else waits for
 * it.
 */
export function loadPeople(): Promise<People> {
  loading ??= fetchPeople()
  return loading
}

async function fetchPeople(): Promise<People> {
  const response = await fetch('/dev/people')
  if (!response.ok) throw new Error(`GET /dev/people: ${response.status}`)
  return (await response.json()) as People
}

/** Signs in one user and refreshes their token. */
export class Session {
  private tokens: Tokens | null = null
  private running: Promise<string | null> | null = null

  constructor(
    private readonly people: People,
    readonly person: DemoPerson,
    /** The lifetime of tokens in seconds, to try what happens when they expire. */
    private readonly lifetime: string | null,
  ) {}

  readonly accessToken = async (options?: { force: boolean }): Promise<string | null> => {
    if (this.tokens && !options?.force) return this.tokens.access_token
    // Requests that wait for a token share one sign-in or refresh.
    this.running ??= this.ask().finally(() => (this.running = null))
    return this.running
  }

  private async ask(): Promise<string | null> {
    const refreshed = this.tokens && (await this.post('refresh_token', { refresh_token: this.tokens.refresh_token }))
    this.tokens =
      refreshed ?? (await this.post('password', { email: this.person.email, password: this.people.password }))
    return this.tokens?.access_token ?? null
  }

  private async post(grant: string, body: object): Promise<Tokens | null> {
    const query = new URLSearchParams({ grant_type: grant, ...(this.lifetime && { expires_in: this.lifetime }) })
    const response = await fetch(`/auth/v1/token?${query}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', apikey: this.people.anon_key },
      body: JSON.stringify(body),
    })
    return response.ok ? ((await response.json()) as Tokens) : null
  }
}
