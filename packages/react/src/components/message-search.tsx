'use client'

import type { MessageHit } from '@rapport-chat/client'
import { Search, X } from 'lucide-react'
import { useEffect, useRef, useState, type ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { MIN_QUERY, useMessageSearch } from '../hooks/use-search'
import { IconButton } from '../parts/icon-button'
import { Progress } from '../parts/progress'
import { MessageHits } from './message-hits'

export interface MessageSearchProps {
  /** Searches only this conversation. If omitted, each hit names its conversation. */
  conversationId?: string
  onOpen: (hit: MessageHit) => void
  /** Called by Escape and by a close button, which is shown only if this is set. */
  onClose?: () => void
  autoFocus?: boolean
}

/** A field that searches messages, and the messages that it finds. */
export function MessageSearch({ conversationId, onOpen, onClose, autoFocus = false }: MessageSearchProps): ReactNode {
  const strings = useStrings()
  const [query, setQuery] = useState('')
  const search = useMessageSearch(query, conversationId === undefined ? {} : { in: conversationId })
  const label = conversationId === undefined ? strings.searchMessages : strings.searchInConversation
  const field = useRef<HTMLInputElement>(null)
  const isAsking = query.trim().length >= MIN_QUERY
  useEffect(() => {
    if (autoFocus) field.current?.focus({ preventScroll: true })
  }, [autoFocus])
  return (
    <div
      className="rpt rpt-find"
      data-slot="message-search"
      role="search"
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !onClose) return
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
          dir={query ? 'auto' : undefined}
          value={query}
          aria-label={label}
          placeholder={label}
          onChange={(event) => setQuery(event.currentTarget.value)}
        />
        {onClose && (
          <IconButton label={strings.close} size="small" onClick={onClose}>
            <X aria-hidden size={18} />
          </IconButton>
        )}
      </div>
      {!isAsking && <p className="rpt-find-hint">{strings.searchHint}</p>}
      {isAsking && (
        <div className="rpt-find-hits">
          <Progress isBusy={search.isSearching && search.hits.length > 0} />
          <MessageHits {...search} showConversation={conversationId === undefined} onOpen={onOpen} />
        </div>
      )}
    </div>
  )
}
