'use client'

import type { ChatError, MessageHit, MessageSearch, Person } from '@rapport-chat/client'
import { useCallback, useEffect, useMemo, useRef, useState } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'

/** Typing pauses are longer than this; a search per key would waste the caller's budget. */
const DEBOUNCE_MS = 250

/** The server searches from this many characters on. */
export const MIN_QUERY = 2

interface Search<T> {
  readonly found: T
  readonly isSearching: boolean
  readonly error: ChatError | null
  /** The query that `found` answers. */
  readonly answered: string
}

type Ask<T> = (query: string, signal: AbortSignal) => Promise<{ data: T; error: null } | { data: null; error: ChatError }>

/** Asks after a pause, aborts the last request, and keeps the last results meanwhile. */
function useDebouncedSearch<T>(query: string, empty: T, ask: Ask<T>): Search<T> {
  const [state, setState] = useState<Search<T>>({ found: empty, isSearching: false, error: null, answered: '' })
  const emptyRef = useRef(empty)

  useEffect(() => {
    if (query.trim().length < MIN_QUERY) {
      setState({ found: emptyRef.current, isSearching: false, error: null, answered: '' })
      return
    }
    setState((old) => ({ ...old, isSearching: true }))
    const abort = new AbortController()
    let timer: ReturnType<typeof setTimeout>
    const run = async (): Promise<void> => {
      const { data, error } = await ask(query.trim(), abort.signal)
      if (abort.signal.aborted) return
      if (error?.code === 'rate_limited') {
        // The server says how long to wait. The old results stay until then.
        timer = setTimeout(() => void run(), (error.retryAfter ?? 1) * 1000)
        return
      }
      setState((old) => ({ found: data ?? old.found, isSearching: false, error, answered: query.trim() }))
    }
    timer = setTimeout(() => void run(), DEBOUNCE_MS)
    return () => {
      clearTimeout(timer)
      abort.abort()
    }
  }, [query, ask])
  return state
}

export interface UserSearch {
  people: readonly Person[]
  /** The people of the latest conversations. */
  recents: readonly Person[]
  isSearching: boolean
  error: ChatError | null
  answered: string
}

const NO_PEOPLE: readonly Person[] = []

/** How many people of recent conversations are offered before anything is typed. */
const RECENTS = 8

export function useUserSearch(query: string): UserSearch {
  const client = useChatClient()
  const conversations = useChatState((state) => state.conversations)
  const ask = useCallback<Ask<readonly Person[]>>((text, signal) => client.searchUsers(text, { signal }), [client])
  const search = useDebouncedSearch(query, NO_PEOPLE, ask)
  const recents = useMemo(() => conversations.flatMap(({ other_user: person }) => (person ? [person] : [])).slice(0, RECENTS), [conversations])
  return { people: search.found, recents, isSearching: search.isSearching, error: search.error, answered: search.answered }
}

export interface MessageSearchState {
  hits: readonly MessageHit[]
  isSearching: boolean
  error: ChatError | null
  answered: string
}

const NO_HITS: readonly MessageHit[] = []

/** The newest messages that match. `in` limits the search to one conversation. */
export function useMessageSearch(query: string, filters: Pick<MessageSearch, 'in' | 'from' | 'after' | 'before' | 'has'> = {}): MessageSearchState {
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
