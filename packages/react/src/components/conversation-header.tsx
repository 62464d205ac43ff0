'use client'

import type { Conversation, Presence } from '@rapport-chat/client'
import { ArrowLeft, Search } from 'lucide-react'
import type { ReactNode } from 'react'
import { useChatContext, useSlot } from '../context/chat-context'
import { useTimeFormat, useToday } from '../context/use-time'
import { conversationName } from '../format/names'
import { inline } from '../format/text'
import { useTypingIndicator } from '../hooks/use-typing-indicator'
import { Avatar, type AvatarPerson } from '../parts/avatar'
import { IconButton } from '../parts/icon-button'
import { ConversationMenuButton } from './conversation-menu'

interface ConversationHeaderProps {
  conversationId: string
  conversation: Conversation | null
  person: AvatarPerson | null
  presence: Presence | undefined
  onBack: (() => void) | undefined
  onSearch: () => void
  isSearching: boolean
}

/** The name and status of the other member, the search button and the menu of the conversation. */
export function ConversationHeader({
  conversationId,
  conversation,
  person,
  presence,
  onBack,
  onSearch,
  isSearching,
}: ConversationHeaderProps): ReactNode {
  const { strings } = useChatContext()
  const slot = useSlot('conversation-header', 'rpt-header')
  const name = conversationName(conversation, person, strings)
  return (
    <header {...slot} data-slot="conversation-header">
      {onBack && (
        <IconButton label={strings.back} className="rpt-back" onClick={onBack}>
          <ArrowLeft aria-hidden size={20} className="rpt-mirrored" />
        </IconButton>
      )}
      <Avatar person={person} size={40} presence={presence?.status} />
      <div className="rpt-header-text">
        <h2 className="rpt-header-name">
          <bdi>{name}</bdi>
        </h2>
        <HeaderStatus conversationId={conversationId} presence={presence} />
      </div>
      <IconButton label={strings.searchInConversation} aria-pressed={isSearching} onClick={onSearch}>
        <Search aria-hidden size={20} />
      </IconButton>
      {conversation && <ConversationMenuButton conversation={conversation} name={name} label={strings.moreActions} />}
    </header>
  )
}

/** Shows "typing…", the other member's status, or when they were last seen. */
function HeaderStatus({
  conversationId,
  presence,
}: {
  conversationId: string
  presence: Presence | undefined
}): ReactNode {
  const { strings, isMounted } = useChatContext()
  const { isTyping } = useTypingIndicator(conversationId)
  const format = useTimeFormat()
  const today = useToday()
  // Until the presence is known, a space preserves the height of the header.
  let text = '\u00A0'
  if (isTyping) text = strings.typing
  else if (isMounted && presence) {
    const isGone = presence.status === 'offline'
    const status =
      isGone && presence.last_seen
        ? strings.lastSeen(format.moment(new Date(presence.last_seen), today))
        : strings[presence.status]
    const own = inline([presence.status_emoji, presence.status_text].filter(Boolean).join(' '))
    text = own && !isGone ? `${status} · ${own}` : status
  }
  return (
    <p className="rpt-header-status" data-slot="header-status" data-typing={isTyping || undefined} dir="auto">
      {text}
    </p>
  )
}
