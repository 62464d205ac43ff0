'use client'

import type { Conversation, Presence } from '@rapport-chat/client'
import { Search, SquarePen, X } from 'lucide-react'
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useBrowserLayoutEffect } from '../context/use-latest'
import { conversationName } from '../format/names'
import { useConversations, type ConversationFilter } from '../hooks/use-conversations'
import { MIN_QUERY } from '../hooks/use-search'
import { useWatchedPresence } from '../hooks/use-user-presence'
import { useIsLate } from '../list/skeleton'
import { IconButton } from '../parts/icon-button'
import { Progress } from '../parts/progress'
import { ConnectionBanner } from './connection-banner'
import { ConversationItem } from './conversation-item'
import { useArchive } from './conversation-menu'
import { EmptyState } from './empty-state'
import { SearchResults } from './search-results'
import { useSteadyOrder } from './use-steady-order'

export interface ConversationsListProps {
  /** By default, the conversations of the provider's client. */
  conversations?: readonly Conversation[]
  currentUserId?: string
  activeConversationId?: string | null
  userPresence?: Readonly<Record<string, Presence>>
  unreadCounts?: Readonly<Record<string, number>>
  onConversationSelect: (conversation: { id: string }, messageId?: string) => void
  onNewConversation?: () => void
  /** Called instead of archiving. */
  onArchiveConversation?: (conversationId: string) => void
  /** Called, after the user has confirmed, instead of deleting. */
  onDeleteConversation?: (conversationId: string) => void
  filter?: ConversationFilter
  density?: 'comfortable' | 'compact'
  /** Whether to show the connection banner. Set it if no open conversation shows one. */
  showConnection?: boolean
}

const FILTERS = ['all', 'unread', 'archived'] as const

/** The list with its search and filters. It has one tab stop; arrows move between conversations. */
export function ConversationsList(props: ConversationsListProps): ReactNode {
  const {
    activeConversationId = null,
    onConversationSelect,
    onNewConversation,
    density = 'comfortable',
    showConnection = false,
  } = props
  const { strings } = useChatContext()
  const [filter, setFilter] = useState<ConversationFilter>(props.filter ?? 'all')
  const [query, setQuery] = useState('')
  const isSearching = query.trim().length >= MIN_QUERY
  const field = useRef<HTMLInputElement>(null)

  return (
    <nav className="rpt rpt-conversations" data-slot="conversations-list" aria-label={strings.conversations}>
      <header className="rpt-list-header">
        <h1 className="rpt-list-title">{strings.messages}</h1>
        {onNewConversation && (
          <IconButton label={strings.newMessage} data-slot="new-message" onClick={onNewConversation}>
            <SquarePen aria-hidden size={20} />
          </IconButton>
        )}
      </header>
      <div className="rpt-search" role="search">
        <Search aria-hidden size={18} />
        <input
          ref={field}
          className="rpt-input"
          data-slot="search"
          type="search"
          dir={query ? 'auto' : undefined}
          value={query}
          aria-label={strings.searchEverything}
          placeholder={strings.searchPlaceholder}
          onChange={(event) => setQuery(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== 'Escape' || query === '') return
            event.preventDefault()
            setQuery('')
          }}
        />
        {query && (
          <IconButton
            label={strings.clearSearch}
            size="small"
            onClick={() => {
              setQuery('')
              field.current?.focus()
            }}
          >
            <X aria-hidden size={16} />
          </IconButton>
        )}
      </div>
      {showConnection && <ConnectionBanner />}
      {isSearching ? (
        <SearchResults
          query={query}
          onOpen={(id, messageId) => {
            setQuery('')
            onConversationSelect({ id }, messageId)
          }}
        />
      ) : (
        <>
          <div className="rpt-filters" role="group" aria-label={strings.filters}>
            {FILTERS.map((one) => (
              <button
                key={one}
                type="button"
                className="rpt-filter"
                aria-pressed={filter === one}
                onClick={() => setFilter(one)}
              >
                {one === 'all' ? strings.filterAll : one === 'unread' ? strings.filterUnread : strings.filterArchived}
              </button>
            ))}
          </div>
          <Items
            {...props}
            key={filter}
            filter={filter}
            activeConversationId={activeConversationId}
            density={density}
            onLeave={() => field.current?.focus()}
          />
        </>
      )}
    </nav>
  )
}

function Items({
  conversations: given,
  currentUserId,
  activeConversationId,
  userPresence,
  unreadCounts,
  onConversationSelect,
  onNewConversation,
  onArchiveConversation,
  onDeleteConversation,
  filter = 'all',
  density,
  onLeave,
}: ConversationsListProps & {
  /** Called when the item with the focus was removed and no other item is left. */
  onLeave: () => void
}): ReactNode {
  const { strings, client } = useChatContext()
  const own = useConversations({ filter })
  const list = useRef<HTMLUListElement>(null)
  const end = useRef<HTMLLIElement>(null)
  const steady = useSteadyOrder(own.conversations, list)
  const conversations = given ?? steady
  const people = useMemo(
    () => conversations.flatMap(({ other_user: person }) => (person ? [person.id] : [])),
    [conversations],
  )
  const watched = useWatchedPresence(people)
  const presence = userPresence ?? watched
  const archive = useArchive()
  const [focused, setFocused] = useState<string | null>(null)
  const stop = conversations.some(({ id }) => id === focused)
    ? focused
    : (conversations.find(({ id }) => id === activeConversationId)?.id ?? conversations[0]?.id)
  const isLate = useIsLate()

  /** The item that contains the focus. Browsers report no event when it is removed. */
  const inside = useRef<{ id: string; index: number } | null>(null)
  useBrowserLayoutEffect(() => {
    const before = inside.current
    if (!before || conversations.some(({ id }) => id === before.id)) return
    inside.current = null
    const all = linksOf(list.current)
    const next = all[Math.min(before.index, all.length - 1)]
    if (next) next.focus()
    else onLeave()
  }, [conversations, onLeave])

  const { hasMore, loadMore } = own
  useEffect(() => {
    if (!end.current || !hasMore || typeof IntersectionObserver === 'undefined') return
    const observer = new IntersectionObserver(([entry]) => entry?.isIntersecting && loadMore())
    observer.observe(end.current)
    return () => observer.disconnect()
  }, [hasMore, loadMore, conversations])

  if (!given && own.isLoading && conversations.length === 0)
    return <ItemsSkeleton isLate={isLate} label={strings.loadingConversations} />
  if (!given && own.error && conversations.length === 0)
    return (
      <EmptyState
        variant="error"
        description={own.error.message}
        code={own.error.code}
        {...(client && { action: { label: strings.tryAgain, onClick: () => client.reconnect() } })}
      />
    )
  if (conversations.length === 0) {
    if (filter === 'unread') return <EmptyState variant="no-unread" />
    if (filter === 'archived') return <EmptyState variant="no-archived" />
    return <EmptyState variant="no-conversations" {...(onNewConversation && { onNewConversation })} />
  }

  const onKeyDown = (event: KeyboardEvent<HTMLUListElement>): void => {
    const all = linksOf(list.current)
    const at = all.indexOf(event.target as HTMLElement)
    if (at < 0 || event.altKey) return
    const move: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }
    const to = move[event.key]
    if (to !== undefined) {
      event.preventDefault()
      all[to]?.focus()
    } else if (event.key === 'Delete') {
      const conversation = conversations.find(({ id }) => id === all[at]?.dataset['conversation'])
      if (!conversation) return
      event.preventDefault()
      if (onArchiveConversation) onArchiveConversation(conversation.id)
      else {
        const name = conversationName(conversation, conversation.other_user, strings)
        archive(conversation.id, name, !conversation.is_archived)
      }
    } else if (event.key.length === 1 && /\p{L}|\p{N}/u.test(event.key) && !event.ctrlKey && !event.metaKey) {
      // Type-ahead by the first letter, starting after the focused item.
      const letter = event.key.toLocaleLowerCase()
      const rest = [...all.slice(at + 1), ...all.slice(0, at + 1)]
      rest.find((link) => link.querySelector('bdi')?.textContent.toLocaleLowerCase().startsWith(letter))?.focus()
    }
  }

  return (
    <>
      {!given && <Progress isBusy={own.isLoading} />}
      <ul
        ref={list}
        className="rpt-items"
        data-slot="conversations"
        onKeyDown={onKeyDown}
        onFocus={(event) => {
          const link = event.target.closest('li')?.querySelector<HTMLElement>('[data-conversation]')
          const id = link?.dataset['conversation']
          if (!link || !id) return
          setFocused(id)
          inside.current = { id, index: linksOf(list.current).indexOf(link) }
        }}
        onBlur={() => {
          inside.current = null
        }}
      >
        {conversations.map((conversation) => (
          <ConversationItem
            key={conversation.id}
            conversation={conversation}
            isActive={conversation.id === activeConversationId}
            userPresence={presence[conversation.other_user?.id ?? '']}
            tabIndex={conversation.id === stop ? 0 : -1}
            onClick={onConversationSelect}
            onArchive={onArchiveConversation}
            onDelete={onDeleteConversation}
            {...(currentUserId && { currentUserId })}
            {...(density && { density })}
            {...(unreadCounts && { unreadCount: unreadCounts[conversation.id] ?? 0 })}
          />
        ))}
        {hasMore && !given && <li ref={end} className="rpt-items-end" aria-hidden="true" />}
      </ul>
    </>
  )
}

function linksOf(list: HTMLElement | null): HTMLElement[] {
  return [...(list?.querySelectorAll<HTMLElement>('[data-conversation]') ?? [])]
}

function ItemsSkeleton({ isLate, label }: { isLate: boolean; label: string }): ReactNode {
  return (
    <div className="rpt-items" data-slot="skeleton" role="status" aria-label={label} data-late={isLate || undefined}>
      {Array.from({ length: 8 }, (_, index) => (
        <div key={index} className="rpt-item-skeleton">
          <span className="rpt-skeleton rpt-skeleton-avatar" />
          <span className="rpt-skeleton-lines">
            <span className="rpt-skeleton" style={{ inlineSize: `${40 + ((index * 17) % 25)}%` }} />
            <span className="rpt-skeleton" style={{ inlineSize: `${60 + ((index * 23) % 30)}%` }} />
          </span>
        </div>
      ))}
    </div>
  )
}
