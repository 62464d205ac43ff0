'use client'

import type { Person } from '@rapport-chat/client'
import { useId, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { displayName } from '../format/names'
import { inline } from '../format/text'
import { MarkedText, rangesOf } from '../format/message-text'
import { useMessageSearch, useUserSearch } from '../hooks/use-search'
import { Avatar } from '../parts/avatar'
import { EmptyState } from './empty-state'
import { MessageHits } from './message-hits'

interface SearchResultsProps {
  query: string
  onOpen: (conversationId: string, messageId?: string) => void
}

/** The people and messages that a search found. Choosing a person opens their conversation. */
export function SearchResults({ query, onOpen }: SearchResultsProps): ReactNode {
  const { strings, toast } = useChatContext()
  const client = useChatClient()
  const users = useUserSearch(query)
  const messages = useMessageSearch(query)
  const presence = useChatState((state) => state.presence)
  const peopleHeading = useId()
  const messagesHeading = useId()
  const isBusy = users.isSearching || messages.isSearching
  const isDone = !isBusy && users.answered === query.trim()

  if (isDone && users.people.length === 0 && messages.hits.length === 0 && !messages.error)
    return <EmptyState variant="no-results" />
  const openPerson = async (person: Person): Promise<void> => {
    const { data, error } = await client.openConversation(person.id)
    if (error) toast({ kind: 'error', text: error.message })
    else onOpen(data.id)
  }
  return (
    <div className="rpt-results" data-slot="search-results" data-busy={isBusy || undefined}>
      {users.people.length > 0 && (
        <section aria-labelledby={peopleHeading}>
          <h2 id={peopleHeading} className="rpt-group-title">
            {strings.groupPeople}
          </h2>
          <ul className="rpt-people">
            {users.people.map((person) => (
              <li key={person.id}>
                <button type="button" className="rpt-person" onClick={() => void openPerson(person)}>
                  <Avatar person={person} size={32} presence={presence[person.id]?.status} />
                  <PersonText person={person} query={query} />
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
      <section aria-labelledby={messagesHeading}>
        <h2 id={messagesHeading} className="rpt-group-title">
          {strings.groupMessages}
        </h2>
        <MessageHits
          hits={messages.hits}
          query={messages.answered}
          isSearching={messages.isSearching}
          error={messages.error}
          onOpen={(hit) => onOpen(hit.message.conversation_id, hit.message.id)}
        />
      </section>
    </div>
  )
}

/** A person's name and email address, with the query marked in both, and the role of an admin. */
export function PersonText({ person, query }: { person: Person; query: string }): ReactNode {
  const { strings } = useChatContext()
  const name = displayName(person, strings)
  const role =
    person.role === 'admin' ? strings.roleAdmin : person.role === 'super_admin' ? strings.roleSuperAdmin : null
  const email = inline(person.email)
  return (
    <span className="rpt-person-text">
      <span className="rpt-person-top">
        <bdi className="rpt-person-name">
          <MarkedText text={name} ranges={rangesOf(name, query)} />
        </bdi>
        {role && <span className="rpt-tag">{role}</span>}
      </span>
      {email && email !== name && (
        <span className="rpt-person-email">
          <MarkedText text={email} ranges={rangesOf(email, query)} />
        </span>
      )}
    </span>
  )
}
