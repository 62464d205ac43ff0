'use client'

import type { ChatError, MessageHit, MessageSearch, Person } from '@rapport-chat/client'
import { useCallback, useEffect, useMemo, useState } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'

/**
 * A pause in typing of this length starts a search. A search for each key would exhaust the rate
 * limit.
 */
const DEBOUNCE_MS = 250

/** The minimum number of characters for which the server searches. */
export const MIN_QUERY = 2

interface Search<T> {
  readonly found: T
  readonly isSearching: boolean
  readonly error: ChatError | null
  /** The query to which `found` belongs. */
  readonly resultsFor: string
  /** Repeats the request after an error. */
  readonly retry: () => void
}

type Results<T> = Omit<Search<T>, 'isSearching' | 'retry'>

type SearchRequest<T> = (
  query: string,
  signal: AbortSignal,
) => Promise<{ data: T; error: null } | { data: null; error: ChatError }>

/** Searches after a pause, and aborts the previous request. Results stay until new ones arrive. */
function useDebouncedSearch<T>(query: string, empty: T, request: SearchRequest<T>): Search<T> {
  const [results, setResults] = useState<Results<T>>({ found: empty, error: null, resultsFor: '' })
  const [attempt, setAttempt] = useState(0)
  const retry = useCallback(() => setAttempt((old) => old + 1), [])
  const wanted = query.trim()
  const isLongEnough = wanted.length >= MIN_QUERY

  useEffect(() => {
    if (!isLongEnough) return
    const abort = new AbortController()
    let timer: ReturnType<typeof setTimeout>
    const run = async (): Promise<void> => {
      const { data, error } = await request(wanted, abort.signal)
      if (abort.signal.aborted) return
      if (error?.code === 'rate_limited') {
        // The response contains the time to wait. The old results stay until then.
        timer = setTimeout(() => void run(), (error.retryAfter ?? 1) * 1000)
        return
      }
      setResults((old) => ({ found: data ?? old.found, error, resultsFor: wanted }))
    }
    timer = setTimeout(() => void run(), DEBOUNCE_MS)
    return () => {
      clearTimeout(timer)
      abort.abort()
    }
  }, [isLongEnough, wanted, request, attempt])

  if (!isLongEnough) return { found: empty, isSearching: false, error: null, resultsFor: '', retry }
  return { ...results, isSearching: results.resultsFor !== wanted, retry }
}

export interface UserSearch {
  people: readonly Person[]
  /** The people of the most recent conversations. */
  recents: readonly Person[]
  isSearching: boolean
  error: ChatError | null
  resultsFor: string
  retry(): void
}

const NO_PEOPLE: readonly Person[] = []

/** The number of people from recent conversations to offer before the user types. */
const RECENTS = 8

export function useUserSearch(query: string): UserSearch {
  const client = useChatClient()
  const conversations = useChatState((state) => state.conversations)
  const request = useCallback<SearchRequest<readonly Person[]>>(
    (text, signal) => client.searchUsers(text, { signal }),
    [client],
  )
  const { found, ...search } = useDebouncedSearch(query, NO_PEOPLE, request)
  const recents = useMemo(
    () => conversations.flatMap(({ other_user: person }) => (person ? [person] : [])).slice(0, RECENTS),
    [conversations],
  )
  return { people: found, recents, ...search }
}

export interface MessageSearchState {
  hits: readonly MessageHit[]
  isSearching: boolean
  error: ChatError | null
  resultsFor: string
  retry(): void
}

const NO_HITS: readonly MessageHit[] = []

/** Returns the newest messages that match. `in` limits the search to one conversation. */
export function useMessageSearch(
  query: string,
  filters: Pick<MessageSearch, 'in' | 'from' | 'after' | 'before' | 'has'> = {},
): MessageSearchState {
  const client = useChatClient()
  const key = JSON.stringify(filters)
  const request = useCallback<SearchRequest<readonly MessageHit[]>>(
    async (text, signal) => {
      const result = await client.api.search(text, { ...(JSON.parse(key) as MessageSearch), signal })
      return result.error ? result : { data: result.data.data, error: null }
    },
    [client, key],
  )
  const { found, ...state } = useDebouncedSearch(query, NO_HITS, request)
  return { hits: found, ...state }
}
