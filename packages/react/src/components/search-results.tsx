'use client'

import type { Person } from '@rapport-chat/client'
import { useId, useMemo, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useChatState, useOptionalChatState } from '../context/use-store'
import { conversationName, displayName } from '../format/names'
import { inline } from '../format/text'
import { MarkedText, rangesOf } from '../format/message-text'
import { useMessageSearch, useUserSearch } from '../hooks/use-search'
import { Avatar } from '../parts/avatar'
import { Progress } from '../parts/progress'
import { EmptyState } from './empty-state'
import { Failure } from './failure'
import { MessageHits } from './message-hits'

interface SearchResultsProps {
  query: string
  onOpen: (conversationId: string, messageId?: string) => void
}

/**
 * Conversations whose names match, other people, and messages. Choosing a person opens the
 * conversation with them.
 */
export function SearchResults({ query, onOpen }: SearchResultsProps): ReactNode {
  const { strings, toast } = useChatContext()
  const client = useChatClient()
  const users = useUserSearch(query)
  const messages = useMessageSearch(query)
  const presence = useChatState((state) => state.presence)
  const all = useChatState((state) => state.conversations)
  const messagesHeading = useId()
  const conversations = useMemo(
    () => all.filter((one) => rangesOf(conversationName(one, one.other_user, strings), query).length > 0),
    [all, query, strings],
  )
  const people = useMemo(() => {
    const known = new Set(conversations.map(({ other_user: person }) => person?.id))
    return users.people.filter(({ id }) => !known.has(id))
  }, [users.people, conversations])
  const isBusy = users.isSearching || messages.isSearching
  const hasFound = conversations.length > 0 || people.length > 0 || messages.hits.length > 0

  if (!isBusy && !hasFound && !users.error && !messages.error && users.resultsFor === query.trim())
    return <EmptyState variant="no-results" />
  const openPerson = async (person: Person): Promise<void> => {
    const { data, error } = await client.openConversation(person.id)
    if (error) toast({ kind: 'error', text: error.message })
    else onOpen(data.id)
  }
  return (
    <div className="rpt-results" data-slot="search-results">
      <Progress isBusy={isBusy && hasFound} />
      <Group title={strings.conversations}>
        {conversations.map((one) => {
          const { other_user: person } = one
          const name = conversationName(one, person, strings)
          return (
            <li key={one.id}>
              <button type="button" className="rpt-person" onClick={() => onOpen(one.id)}>
                <Avatar person={person} size={32} presence={presence[person?.id ?? '']?.status} />
                <bdi className="rpt-person-name">
                  <MarkedText text={name} ranges={rangesOf(name, query)} />
                </bdi>
              </button>
            </li>
          )
        })}
      </Group>
      <Group title={strings.groupPeople}>
        {people.map((person) => (
          <li key={person.id}>
            <button type="button" className="rpt-person" onClick={() => void openPerson(person)}>
              <Avatar person={person} size={32} presence={presence[person.id]?.status} />
              <PersonText person={person} query={query} />
            </button>
          </li>
        ))}
      </Group>
      {users.error && <Failure error={users.error} onRetry={users.retry} />}
      <section aria-labelledby={messagesHeading}>
        <h2 id={messagesHeading} className="rpt-group-title">
          {strings.groupMessages}
        </h2>
        <MessageHits
          {...messages}
          showConversation
          onOpen={({ message }) => onOpen(message.conversation_id, message.id)}
        />
      </section>
    </div>
  )
}

/** A heading and its list, or nothing. */
function Group({ title, children }: { title: string; children: readonly ReactNode[] }): ReactNode {
  const heading = useId()
  if (children.length === 0) return null
  return (
    <section aria-labelledby={heading}>
      <h2 id={heading} className="rpt-group-title">
        {title}
      </h2>
      <ul className="rpt-people">{children}</ul>
    </section>
  )
}

/**
 * A person's name, role, email address and, if the user is an admin, team. In the name and the
 * address, the text of the query is marked.
 */
export function PersonText({ person, query }: { person: Person; query: string }): ReactNode {
  const { strings } = useChatContext()
  const name = displayName(person, strings)
  const role =
    person.role === 'admin' ? strings.roleAdmin : person.role === 'super_admin' ? strings.roleSuperAdmin : null
  const email = inline(person.email)
  const me = useOptionalChatState((state) => state.me, null)
  // Everyone else finds only members of their own teams.
  const team = isAdmin(me?.role) && me?.teams.find(({ id }) => id === person.team_id)?.name
  return (
    <span className="rpt-person-text">
      <span className="rpt-person-top">
        <bdi className="rpt-person-name">
          <MarkedText text={name} ranges={rangesOf(name, query)} />
        </bdi>
        {role && <span className="rpt-tag">{role}</span>}
        {team && <span className="rpt-tag">{inline(team)}</span>}
      </span>
      {email && email !== name && (
        <span className="rpt-person-email">
          <MarkedText text={email} ranges={rangesOf(email, query)} />
        </span>
      )}
    </span>
  )
}

function isAdmin(role: Person['role'] | null | undefined): boolean {
  return role === 'admin' || role === 'super_admin'
}
