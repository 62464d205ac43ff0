'use client'

import type { Person } from '@rapport-chat/client'
import { Search, X } from 'lucide-react'
import { useEffect, useId, useMemo, useRef, useState, type KeyboardEvent, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useWatchedPresence } from '../hooks/use-user-presence'
import { MIN_QUERY, useUserSearch } from '../hooks/use-search'
import { Avatar } from '../parts/avatar'
import { IconButton } from '../parts/icon-button'
import { Progress } from '../parts/progress'
import { Failure } from './failure'
import { PersonText } from './search-results'

export interface UserSearchInputProps {
  onSelect: (person: Person) => void
  value?: string
  onChange?: (value: string) => void
  currentUserId?: string
  teamId?: string
  /** People to show before the user types. By default, those of recent conversations. */
  recents?: readonly Person[]
  /** People to show below `recents`. */
  teamMembers?: readonly Person[]
  placeholder?: string
  autoFocus?: boolean
}

interface Group {
  readonly title: string
  readonly people: readonly Person[]
}

/** A combobox that finds people whom the user may message. */
export function UserSearchInput({
  onSelect,
  value,
  onChange,
  teamId,
  recents: given,
  teamMembers,
  placeholder,
  autoFocus = false,
}: UserSearchInputProps): ReactNode {
  const { strings, announce } = useChatContext()
  const [own, setOwn] = useState('')
  const query = value ?? own
  const { people, recents, isSearching, error, resultsFor, retry } = useUserSearch(query)
  const [activeId, setActiveId] = useState<string | null>(null)
  const list = useId()
  const isLongEnough = query.trim().length >= MIN_QUERY

  const groups = useMemo<readonly Group[]>(() => {
    const inTeam = (all: readonly Person[]): readonly Person[] =>
      teamId === undefined ? all : all.filter((person) => person.team_id === teamId)
    const all = isLongEnough
      ? [{ title: strings.groupPeople, people: inTeam(people) }]
      : [
          { title: strings.recentContacts, people: given ?? recents },
          { title: strings.yourTeams, people: inTeam(teamMembers ?? []) },
        ]
    return all.filter((group) => group.people.length > 0)
  }, [isLongEnough, people, given, recents, teamMembers, teamId, strings])
  const all = useMemo(() => groups.flatMap((group) => group.people), [groups])
  const presence = useWatchedPresence(useMemo(() => all.map(({ id }) => id), [all]))
  const active = all.find(({ id }) => id === activeId) ?? (isLongEnough ? all[0] : undefined)

  useEffect(() => {
    if (isLongEnough && !isSearching && resultsFor === query.trim())
      announce(people.length > 0 ? strings.peopleFound(people.length) : strings.nobodyFound)
  }, [isLongEnough, isSearching, resultsFor, query, people.length, strings, announce])

  const options = useRef<HTMLDivElement>(null)
  useEffect(() => {
    // Newer browsers return a promise here. React would treat it as a cleanup function.
    void options.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' })
  }, [active])

  const change = (text: string): void => {
    if (value === undefined) setOwn(text)
    onChange?.(text)
    setActiveId(null)
  }
  const onKeyDown = (event: KeyboardEvent<HTMLInputElement>): void => {
    if (event.nativeEvent.isComposing) return
    const at = all.findIndex(({ id }) => id === active?.id)
    const go = (index: number): void => {
      event.preventDefault()
      setActiveId(all[Math.max(0, Math.min(index, all.length - 1))]?.id ?? null)
    }
    if (event.key === 'ArrowDown') go(at + 1)
    else if (event.key === 'ArrowUp') go(at - 1)
    else if (event.key === 'Home' && query === '') go(0)
    else if (event.key === 'End' && query === '') go(all.length - 1)
    else if (event.key === 'Enter' && active) {
      event.preventDefault()
      onSelect(active)
    } else if (event.key === 'Escape' && query !== '') {
      event.preventDefault()
      event.stopPropagation()
      change('')
    }
  }
  const optionId = (person: Person): string => `${list}-${person.id}`

  return (
    <div className="rpt-user-search" data-slot="user-search">
      <div className="rpt-search">
        <Search aria-hidden size={18} />
        <input
          className="rpt-input"
          type="text"
          dir={query ? 'auto' : undefined}
          role="combobox"
          data-autofocus={autoFocus || undefined}
          aria-label={strings.findPeople}
          aria-expanded={all.length > 0}
          aria-controls={list}
          aria-autocomplete="list"
          aria-activedescendant={active ? optionId(active) : undefined}
          autoComplete="off"
          spellCheck={false}
          placeholder={placeholder ?? strings.findPeople}
          value={query}
          onChange={(event) => change(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {query && (
          <IconButton label={strings.clearSearch} size="small" tabIndex={-1} onClick={() => change('')}>
            <X aria-hidden size={16} />
          </IconButton>
        )}
      </div>
      <Progress isBusy={isSearching} />
      <div
        ref={options}
        id={list}
        className="rpt-options"
        role="listbox"
        aria-label={isLongEnough ? strings.groupPeople : strings.recentContacts}
      >
        {groups.map((group) => (
          <div key={group.title} role="group" aria-label={group.title}>
            <div className="rpt-group-title" aria-hidden="true">
              {group.title}
            </div>
            {group.people.map((person) => (
              <div
                key={person.id}
                id={optionId(person)}
                className="rpt-person"
                data-slot="person"
                role="option"
                aria-selected={person.id === active?.id}
                onPointerMove={() => setActiveId(person.id)}
                onClick={() => onSelect(person)}
              >
                <Avatar person={person} size={40} presence={presence[person.id]?.status} />
                <PersonText person={person} query={query} />
              </div>
            ))}
          </div>
        ))}
      </div>
      {error && <Failure error={error} onRetry={retry} />}
      {!error && all.length === 0 && (
        <p className="rpt-hint">
          {isLongEnough
            ? isSearching || resultsFor !== query.trim()
              ? strings.searching
              : strings.nobodyFoundFor(query.trim())
            : query
              ? strings.typeToSearch
              : strings.noContacts}
        </p>
      )}
    </div>
  )
}
