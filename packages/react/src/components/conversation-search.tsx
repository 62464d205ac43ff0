'use client'

import { Search, X } from 'lucide-react'
import { useEffect, useRef, useState, type ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { MIN_QUERY, useMessageSearch } from '../hooks/use-search'
import { IconButton } from '../parts/icon-button'
import { MessageHits } from './message-hits'

interface ConversationSearchProps {
  conversationId: string
  onOpen: (messageId: string) => void
  onClose: () => void
}

/** The search field and its hits. They are shown below the header of a conversation. */
export function ConversationSearch({ conversationId, onOpen, onClose }: ConversationSearchProps): ReactNode {
  const strings = useStrings()
  const [query, setQuery] = useState('')
  const { hits, isSearching, error, answered } = useMessageSearch(query, { in: conversationId })
  const field = useRef<HTMLInputElement>(null)
  useEffect(() => {
    field.current?.focus({ preventScroll: true })
  }, [])
  return (
    <div
      className="rpt-find"
      data-slot="conversation-search"
      role="search"
      onKeyDown={(event) => {
        if (event.key !== 'Escape') return
        event.stopPropagation()
        onClose()
      }}
    >
      <div className="rpt-find-field">
        <Search aria-hidden size={18} />
        <input
          ref={field}
          className="rpt-input"
          type="search"
          dir="auto"
          value={query}
          aria-label={strings.searchInConversation}
          placeholder={strings.searchInConversation}
          onChange={(event) => setQuery(event.currentTarget.value)}
        />
        <IconButton label={strings.close} size="small" onClick={onClose}>
          <X aria-hidden size={18} />
        </IconButton>
      </div>
      {query.trim().length < MIN_QUERY && <p className="rpt-find-hint">{strings.searchHint}</p>}
      {query.trim().length >= MIN_QUERY && (
        <div className="rpt-find-hits" data-busy={isSearching || undefined}>
          <MessageHits
            hits={hits}
            query={answered}
            isSearching={isSearching}
            error={error}
            onOpen={({ message }) => onOpen(message.id)}
          />
        </div>
      )}
    </div>
  )
}
