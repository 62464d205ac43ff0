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
  readonly answered: string
  /** Asks again after an error. */
  readonly retry: () => void
}

type Answer<T> = Omit<Search<T>, 'isSearching' | 'retry'>

type Ask<T> = (
  query: string,
  signal: AbortSignal,
) => Promise<{ data: T; error: null } | { data: null; error: ChatError }>

/** Searches after a pause, and aborts the previous request. Results stay until new ones arrive. */
function useDebouncedSearch<T>(query: string, empty: T, ask: Ask<T>): Search<T> {
  const [answer, setAnswer] = useState<Answer<T>>({ found: empty, error: null, answered: '' })
  const [attempt, setAttempt] = useState(0)
  const retry = useCallback(() => setAttempt((old) => old + 1), [])
  const wanted = query.trim()
  const isAsking = wanted.length >= MIN_QUERY

  useEffect(() => {
    if (!isAsking) return
    const abort = new AbortController()
    let timer: ReturnType<typeof setTimeout>
    const run = async (): Promise<void> => {
      const { data, error } = await ask(wanted, abort.signal)
      if (abort.signal.aborted) return
      if (error?.code === 'rate_limited') {
        // The response contains the time to wait. The old results stay until then.
        timer = setTimeout(() => void run(), (error.retryAfter ?? 1) * 1000)
        return
      }
      setAnswer((old) => ({ found: data ?? old.found, error, answered: wanted }))
    }
    timer = setTimeout(() => void run(), DEBOUNCE_MS)
    return () => {
      clearTimeout(timer)
      abort.abort()
    }
  }, [isAsking, wanted, ask, attempt])

  if (!isAsking) return { found: empty, isSearching: false, error: null, answered: '', retry }
  return { ...answer, isSearching: answer.answered !== wanted, retry }
}

export interface UserSearch {
  people: readonly Person[]
  /** The people of the most recent conversations. */
  recents: readonly Person[]
  isSearching: boolean
  error: ChatError | null
  answered: string
  retry(): void
}

const NO_PEOPLE: readonly Person[] = []

/** The number of people from recent conversations to offer before the user types. */
const RECENTS = 8

export function useUserSearch(query: string): UserSearch {
  const client = useChatClient()
  const conversations = useChatState((state) => state.conversations)
  const ask = useCallback<Ask<readonly Person[]>>((text, signal) => client.searchUsers(text, { signal }), [client])
  const { found, ...search } = useDebouncedSearch(query, NO_PEOPLE, ask)
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
  answered: string
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
  const ask = useCallback<Ask<readonly MessageHit[]>>(
    async (text, signal) => {
      const result = await client.api.search(text, { ...(JSON.parse(key) as MessageSearch), signal })
      return result.error ? result : { data: result.data.data, error: null }
    },
    [client, key],
  )
  const { found, ...state } = useDebouncedSearch(query, NO_HITS, ask)
  return { hits: found, ...state }
}
