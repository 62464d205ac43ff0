'use client'

import type { Conversation, Presence } from '@rapport-chat/client'
import {
  Archive,
  ArchiveRestore,
  ArrowLeft,
  Ban,
  Bell,
  BellOff,
  EllipsisVertical,
  MailOpen,
  Pin,
  PinOff,
  Search,
  Trash2,
} from 'lucide-react'
import { useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useTimeFormat, useToday } from '../context/use-time'
import { conversationName } from '../format/names'
import { inline } from '../format/text'
import { useTypingIndicator } from '../hooks/use-typing-indicator'
import { Avatar, type AvatarPerson } from '../parts/avatar'
import { Question } from '../parts/dialog'
import { IconButton } from '../parts/icon-button'
import { Menu, type MenuItem } from '../parts/menu'

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
  const name = conversationName(conversation, person, strings)
  return (
    <header className="rpt-header" data-slot="conversation-header">
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

interface MenuButtonProps {
  conversation: Conversation
  name: string
  label: string
  size?: 'small' | 'medium'
}

const ICON = 18

export function ConversationMenuButton({ conversation, name, label, size = 'medium' }: MenuButtonProps): ReactNode {
  const [anchor, setAnchor] = useState<Element | null>(null)
  const [question, setQuestion] = useState<'clear' | 'block' | null>(null)
  const { strings, toast } = useChatContext()
  const client = useChatClient()
  const items = useConversationItems(conversation, name, setQuestion)
  const person = conversation.other_user
  return (
    <>
      <IconButton
        label={label}
        size={size}
        className="rpt-item-menu"
        aria-haspopup="menu"
        aria-expanded={anchor !== null}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <EllipsisVertical aria-hidden size={size === 'small' ? 18 : 20} />
      </IconButton>
      {anchor && <Menu anchor={anchor} label={label} items={items} onClose={() => setAnchor(null)} />}
      {question === 'clear' && (
        <Question
          title={strings.clearQuestion}
          text={strings.clearExplanation(name)}
          confirm={strings.remove}
          onConfirm={() => void client.clear(conversation.id)}
          onClose={() => setQuestion(null)}
        />
      )}
      {question === 'block' && person && (
        <Question
          title={strings.blockQuestion(name)}
          text={strings.blockExplanation(name)}
          confirm={strings.block}
          onConfirm={() =>
            void client.block(person.id).then(({ error }) => {
              if (error) toast({ kind: 'error', text: error.message })
              else
                toast({
                  text: strings.blocked(name),
                  action: { label: strings.undo, run: () => void client.unblock(person.id) },
                })
            })
          }
          onClose={() => setQuestion(null)}
        />
      )}
    </>
  )
}

function useConversationItems(
  conversation: Conversation,
  name: string,
  ask: (question: 'clear' | 'block') => void,
): readonly (MenuItem | 'separator')[] {
  const { strings } = useChatContext()
  const client = useChatClient()
  const archive = useArchive()
  const { id, is_pinned, is_muted, is_archived, unread_count, marked_unread } = conversation
  const isUnread = unread_count > 0 || marked_unread
  const one = client.conversation(id)
  return [
    {
      id: 'pin',
      label: is_pinned ? strings.unpin : strings.pin,
      icon: is_pinned ? <PinOff size={ICON} /> : <Pin size={ICON} />,
      run: () => void client.pin(id, !is_pinned),
    },
    {
      id: 'mute',
      label: is_muted ? strings.unmute : strings.mute,
      icon: is_muted ? <Bell size={ICON} /> : <BellOff size={ICON} />,
      run: () => void client.mute(id, !is_muted),
    },
    {
      id: 'unread',
      label: isUnread ? strings.markRead : strings.markUnread,
      icon: <MailOpen size={ICON} />,
      run: () => void (isUnread ? one.markRead() : one.markUnread()),
    },
    {
      id: 'archive',
      label: is_archived ? strings.unarchive : strings.archive,
      icon: is_archived ? <ArchiveRestore size={ICON} /> : <Archive size={ICON} />,
      run: () => archive(id, name, !is_archived),
    },
    'separator',
    ...(conversation.other_user
      ? [{ id: 'block', label: strings.block, icon: <Ban size={ICON} />, run: () => ask('block') }]
      : []),
    {
      id: 'clear',
      label: strings.clearConversation,
      icon: <Trash2 size={ICON} />,
      isDanger: true,
      run: () => ask('clear'),
    },
  ]
}

/** Returns a function that archives or restores a conversation, and offers to undo that. */
export function useArchive(): (id: string, name: string, isArchived: boolean) => void {
  const client = useChatClient()
  const { strings, toast } = useChatContext()
  return (id, name, isArchived) => {
    void client.archive(id, isArchived)
    toast({
      text: isArchived ? strings.archived(name) : strings.unarchived(name),
      action: { label: strings.undo, run: () => void client.archive(id, !isArchived) },
    })
  }
}
