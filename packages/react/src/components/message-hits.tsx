'use client'

import type { ChatError, MessageHit } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { displayName } from '../format/names'
import { MarkedText } from '../format/message-text'
import { Avatar } from '../parts/avatar'
import { Time } from '../parts/time'

interface MessageHitsProps {
  hits: readonly MessageHit[]
  query: string
  isSearching: boolean
  error: ChatError | null
  onOpen: (hit: MessageHit) => void
}

/** The messages that a search found. Old hits stay until new ones arrive. */
export function MessageHits({ hits, query, isSearching, error, onOpen }: MessageHitsProps): ReactNode {
  const strings = useStrings()
  if (error)
    return (
      <p className="rpt-hint" role="alert">
        {error.message}
      </p>
    )
  if (hits.length === 0)
    return (
      <p className="rpt-hint" role="status">
        {isSearching || !query ? strings.searching : strings.searchNothing(query)}
      </p>
    )
  return (
    <>
      <p className="rpt-hidden" role="status">
        {strings.hitsFound(hits.length)}
      </p>
      <ul className="rpt-hits">
        {hits.map((hit) => {
          const fragment = hit.fragments[0]
          const sender = hit.message.sender
          return (
            <li key={hit.message.id}>
              <button type="button" className="rpt-hit" data-slot="hit" onClick={() => onOpen(hit)}>
                <Avatar person={sender} size={32} />
                <span className="rpt-hit-body">
                  <span className="rpt-hit-top">
                    <bdi className="rpt-hit-name">{displayName(sender, strings)}</bdi>
                    <Time value={hit.message.created_at} kind="short" className="rpt-item-time" />
                  </span>
                  <span className="rpt-hit-text" dir="auto">
                    {fragment ? <MarkedText text={fragment.text} ranges={fragment.ranges} /> : hit.message.content}
                  </span>
                </span>
              </button>
            </li>
          )
        })}
      </ul>
    </>
  )
}
