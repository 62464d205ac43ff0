// Errors are values: plain objects that can be serialised, sent to other tabs and compared.

import type { ChatError, ErrorCode, Result } from './types'

export function chatError(code: ErrorCode, message: string, fields: Partial<ChatError> = {}): ChatError {
  return { code, message, status: 0, hint: null, retryAfter: null, requestId: null, ...fields }
}

export const unreachable = (cause: unknown): ChatError =>
  chatError('network', 'The server cannot be reached.', { hint: String(cause) })

export const ok = <T>(data: T): Result<T> => ({ data, error: null })
export const refused = <T>(error: ChatError): Result<T> => ({ data: null, error })

/**
 * Whether the user's session has ended, or the page's session now belongs to another user. Only
 * signing in helps.
 */
export const isSignedOut = ({ code, status }: ChatError): boolean => status === 401 || code === 'identity_mismatch'

/**
 * Whether the same request can succeed later: after a failure of the network, a timeout, a rate
 * limit, a server error, or while the server still processes an earlier attempt. After any other
 * error, it would be refused again.
 */
export function isTransient({ code, status }: ChatError): boolean {
  if (code === 'network' || code === 'idempotency_in_flight') return true
  return status === 408 || status === 429 || status >= 500
}
