// Sends HTTP requests with the user's token. Returns responses and errors as values.

import { chatError, isSignedOut, ok, refused, unreachable } from './errors'
import type { Token } from './token'
import type { ChatError, Result } from './types'
import type * as wire from './wire'

/** The base URL of the routes if the page's own origin forwards this path to Rapport. */
const DEFAULT_BASE_URL = '/api/supabase/user-chat'

export interface RequestOptions {
  signal?: AbortSignal | undefined
}

export interface Request extends RequestOptions {
  query?: Record<string, string | number | boolean | null | undefined>
  body?: object
  headers?: Record<string, string>
  /** Lets the request outlive its page. */
  keepalive?: boolean
}

export interface RequestSettings {
  baseUrl?: string | undefined
  /**
   * The user that every request names. All tabs share the session, so another tab may have changed
   * it by signing in as another user. The server refuses a request that names another user than the
   * session's.
   */
  userId?: string | undefined
  token: Token
  fetch?: typeof fetch | undefined
  /**
   * Resolves when the page is painted. Writes wait for it, because starting a request takes
   * milliseconds on a phone, during which the effect of the user's action could not be painted.
   */
  painted?: (() => Promise<void>) | undefined
  /**
   * Called when the session has ended (the status is still 401 after the token was refreshed, if
   * there is one) or belongs to another user.
   */
  onSignedOut?: ((error: ChatError) => void) | undefined
}

export class Requests {
  readonly #settings: RequestSettings
  #abort = new AbortController()

  constructor(settings: RequestSettings) {
    this.#settings = settings
  }

  /**
   * Cancels all requests when the user signs out. Those that wait for a token are not sent, and
   * responses are ignored.
   */
  cancelAll(): void {
    this.#abort.abort()
    this.#abort = new AbortController()
  }

  async send<T>(method: string, path: string, request: Request = {}): Promise<Result<T>> {
    const { token, painted, onSignedOut } = this.#settings
    const { signal } = this.#abort
    try {
      if (method !== 'GET' && !request.keepalive) await painted?.()
      // A page that is being closed may be gone before the application returns a token, so the last
      // one is used.
      const first = (request.keepalive ? token.last : null) ?? (await token.get())
      signal.throwIfAborted()
      let response = await this.#attempt(method, path, request, first)
      if (response.status === 401 && token.isUsed) {
        const second = await token.replace(first)
        signal.throwIfAborted()
        if (second !== null && second !== first) response = await this.#attempt(method, path, request, second)
      }
      const result = await read<T>(response)
      signal.throwIfAborted()
      if (result.error && isSignedOut(result.error)) onSignedOut?.(result.error)
      return result
    } catch (cause) {
      const isCancelled = signal.aborted || request.signal?.aborted
      return refused(isCancelled ? chatError('aborted', 'The request was cancelled.') : unreachable(cause))
    }
  }

  #attempt(method: string, path: string, request: Request, token: string | null): Promise<Response> {
    // Browsers refuse to call `fetch` as a method of another object.
    const { baseUrl = DEFAULT_BASE_URL, userId, fetch: send = fetch } = this.#settings
    const { query, body, headers, signal = null, keepalive = false } = request
    const parameters = Object.entries({ current_user_id: userId, ...query }).flatMap(([name, value]) =>
      value == null ? [] : [[name, String(value)]],
    )
    const search = parameters.length > 0 ? `?${new URLSearchParams(parameters)}` : ''
    return send(baseUrl + path + search, {
      method,
      headers: {
        ...(token !== null && { authorization: `Bearer ${token}` }),
        ...(body && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body ? JSON.stringify(body) : null,
      signal,
      keepalive,
      // Responses are private and must be current, so the browser must not cache them.
      cache: 'no-store',
    })
  }
}

async function read<T>(response: Response): Promise<Result<T>> {
  const text = await response.text()
  if (!response.ok) return refused(refusal(response, text))
  return ok((text === '' ? null : JSON.parse(text)) as T)
}

function refusal({ status, statusText, headers }: Response, text: string): ChatError {
  const answer = errorIn(text)
  return {
    code: answer?.code ?? 'unexpected_answer',
    message: String(answer?.error ?? (statusText || `HTTP ${status}`)),
    status,
    hint: answer?.hint ?? null,
    retryAfter: answer?.retry_after ?? (Number(headers.get('retry-after')) || null),
    requestId: headers.get('x-request-id'),
  }
}

/** Returns the error in a response. A proxy may have sent the response, so it need not be JSON. */
function errorIn(text: string): Partial<wire.Error> | null {
  try {
    const answer = JSON.parse(text)
    return typeof answer.code === 'string' ? answer : null
  } catch {
    return null
  }
}
