'use client'

import type { MessageHit } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { useOptionalChatState } from '../context/use-store'
import { conversationName, displayName, firstName } from '../format/names'
import { MarkedText } from '../format/message-text'
import type { MessageSearchState } from '../hooks/use-search'
import { Avatar } from '../parts/avatar'
import { Time } from '../parts/time'
import { Failure } from './failure'

interface MessageHitsProps extends MessageSearchState {
  /** Whether each hit names its conversation. If not, it names its sender. */
  showConversation?: boolean
  onOpen: (hit: MessageHit) => void
}

/** The messages that a search found. Old hits stay until new ones arrive. */
export function MessageHits(props: MessageHitsProps): ReactNode {
  const { hits, resultsFor, isSearching, error, retry, showConversation = false, onOpen } = props
  const strings = useStrings()
  if (error) return <Failure error={error} onRetry={retry} />
  if (hits.length === 0)
    return (
      <p className="rpt-hint" role="status">
        {isSearching || !resultsFor ? strings.searching : strings.searchNothing(resultsFor)}
      </p>
    )
  return (
    <>
      <p className="rpt-hidden" role="status">
        {strings.hitsFound(hits.length)}
      </p>
      <ul className="rpt-hits">
        {hits.map((hit) => (
          <li key={hit.message.id}>
            <Hit hit={hit} showConversation={showConversation} onOpen={onOpen} />
          </li>
        ))}
      </ul>
    </>
  )
}

type HitProps = Required<Pick<MessageHitsProps, 'showConversation' | 'onOpen'>> & { hit: MessageHit }

function Hit({ hit, showConversation, onOpen }: HitProps): ReactNode {
  const strings = useStrings()
  const me = useOptionalChatState((state) => state.me.id, '')
  const { message, conversation } = hit
  const { sender } = message
  const fragment = hit.fragments[0]
  const other = conversation.other_user
  const isOwn = message.sender_id === me
  const senderName = isOwn ? strings.you : displayName(sender, strings)
  // The name of a direct conversation already names the other person.
  const isNamed = showConversation && message.sender_id !== other?.id
  const author = isOwn ? strings.previewOwn('') : strings.announceMessage(firstName(senderName), '')
  return (
    <button type="button" className="rpt-hit" data-slot="hit" onClick={() => onOpen(hit)}>
      <Avatar person={showConversation ? other : sender} size={32} />
      <span className="rpt-hit-body">
        <span className="rpt-hit-top">
          <bdi className="rpt-hit-name">
            {showConversation ? conversationName(conversation, other, strings) : senderName}
          </bdi>
          <Time value={message.created_at} kind="short" className="rpt-item-time" />
        </span>
        <span className="rpt-hit-text" dir="auto">
          {isNamed && <bdi>{author}</bdi>}
          {fragment ? <MarkedText text={fragment.text} ranges={fragment.ranges} /> : message.content}
        </span>
      </span>
    </button>
  )
}
