'use client'

import type { ConversationClient, Presence } from '@rapport-chat/client'
import { useEffect, useRef, useState, type ReactNode } from 'react'
import { useChatClient, useChatContext, useStrings } from '../context/chat-context'
import { conversationName } from '../format/names'
import { useConversation } from '../hooks/use-conversations'
import { useOpenConversation, useTimeline, useTimelineStatus } from '../hooks/use-realtime-chat'
import { useIsBlocked } from '../hooks/use-is-blocked'
import { useWatchedPresence } from '../hooks/use-user-presence'
import { MessageList, type MessageListHandle, type MessageListProps } from '../list/message-list'
import { Avatar, type AvatarPerson } from '../parts/avatar'
import { Progress } from '../parts/progress'
import { PendingUploads } from '../uploads/pending-uploads'
import { useUploads } from '../uploads/use-uploads'
import { ConnectionBanner } from './connection-banner'
import { ConversationHeader } from './conversation-header'
import { EmptyState } from './empty-state'
import { ConversationComposer, type ComposerMode } from './composer/conversation-composer'
import type { MessageInputHandle } from './message-input'
import { useMessageActions } from './message/use-message-actions'
import { MessageSearch } from './message-search'
import { PinnedBar } from './pinned-bar'
import { ConversationTyping } from './typing-indicator'

export interface UserChatInterfaceProps {
  conversationId: string
  /** The person to show until the conversation is loaded. */
  otherUser?: AvatarPerson
  currentUserId?: string
  userPresence?: Readonly<Record<string, Presence>>
  onBack?: () => void
  /** Replaces the header. */
  header?: ReactNode
  /** Replaces the composer. */
  composer?: ReactNode
  /** The message at which the conversation opens, such as the target of a link. */
  focusMessageId?: string
  readOnly?: boolean
}

/** One conversation: header, messages and composer. */
export function UserChatInterface(props: UserChatInterfaceProps): ReactNode {
  return <Interface key={props.conversationId} {...props} />
}

function Interface({
  conversationId,
  otherUser,
  userPresence,
  onBack,
  header,
  composer,
  focusMessageId,
  readOnly = false,
}: UserChatInterfaceProps): ReactNode {
  const { strings } = useChatContext()
  const conversation = useConversation(conversationId)
  const handle = useOpenConversation(conversationId, focusMessageId)
  const status = useTimelineStatus(handle)
  const person = conversation?.other_user ?? otherUser ?? null
  const watched = useWatchedPresence(person ? [person.id] : [])
  const presence = (userPresence ?? watched)[person?.id ?? '']
  const [mode, setMode] = useState<ComposerMode>(null)
  const [isSearching, setSearching] = useState(false)
  const field = useRef<MessageInputHandle>(null)
  const list = useRef<MessageListHandle>(null)
  const name = conversationName(conversation, person, strings)
  const canSend = !readOnly && (conversation?.can_send ?? true)
  const uploads = useUploads(handle)
  const leaveSearch = (): void => {
    setSearching(false)
    field.current?.focus()
  }

  const { actions, panels, saveEdit } = useMessageActions({
    conversation: handle,
    canSend,
    onReply: (message) => {
      setMode({ kind: 'reply', message })
      field.current?.focus()
    },
    onEdit: (message) => {
      setMode({ kind: 'edit', message })
      field.current?.focus()
    },
  })
  useEffect(() => () => handle.stopTyping(), [handle])

  if (status === 'not_found')
    return (
      <section className="rpt rpt-interface" data-slot="chat-interface">
        <EmptyState variant="not-found" {...(onBack && { action: { label: strings.back, onClick: onBack } })} />
      </section>
    )

  return (
    <section
      className="rpt rpt-interface"
      data-slot="chat-interface"
      aria-label={strings.conversationWith(name)}
      onKeyDown={(event) => {
        // Strips, menus and rows handle Escape before this and prevent its default action.
        if (event.key !== 'Escape' || event.defaultPrevented || !isSearching) return
        event.preventDefault()
        leaveSearch()
      }}
    >
      {header ?? (
        <ConversationHeader
          conversationId={conversationId}
          conversation={conversation}
          person={person}
          presence={presence}
          onBack={onBack}
          isSearching={isSearching}
          onSearch={() => setSearching(!isSearching)}
        />
      )}
      {isSearching && (
        <MessageSearch
          autoFocus
          conversationId={conversationId}
          onOpen={({ message }) => void handle.jumpTo(message.id)}
          onClose={leaveSearch}
        />
      )}
      <Pinned conversation={handle} />
      <ConnectionBanner />
      <Loading conversation={handle} />
      <Messages
        conversation={handle}
        name={name}
        actions={actions}
        handle={list}
        showAvatars={conversation?.kind === 'group'}
        beginning={status === 'ready' ? <Beginning person={person} name={name} /> : null}
        end={
          <>
            <PendingUploads {...uploads} />
            <ConversationTyping conversationId={conversationId} />
          </>
        }
        onLeave={() => field.current?.focus()}
      />
      {composer ??
        (canSend ? (
          <ConversationComposer
            conversation={handle}
            name={name}
            mode={mode}
            onMode={setMode}
            actions={actions}
            onSaveEdit={saveEdit}
            onFileUpload={
              uploads.add &&
              ((file) => {
                uploads.add?.(file)
                list.current?.toBottom()
              })
            }
            handle={field}
          />
        ) : (
          <Refusal person={person} name={name} isReadOnly={readOnly} />
        ))}
      {panels}
    </section>
  )
}

// These parts render with each message. The rest of the interface does not, because it would delay
// the user's own messages.

function Messages(props: Omit<MessageListProps, 'timeline'>): ReactNode {
  return <MessageList {...props} timeline={useTimeline(props.conversation)} />
}

function Pinned({ conversation }: { conversation: ConversationClient }): ReactNode {
  const { messages } = useTimeline(conversation)
  return <PinnedBar messages={messages} onOpen={(id) => void conversation.jumpTo(id)} />
}

function Loading({ conversation }: { conversation: ConversationClient }): ReactNode {
  const { status, messages } = useTimeline(conversation)
  return <Progress isBusy={status === 'loading' && messages.length > 0} />
}

function Beginning({ person, name }: { person: AvatarPerson | null; name: string }): ReactNode {
  const strings = useStrings()
  return (
    <div className="rpt-beginning" data-slot="beginning">
      <Avatar person={person} size={64} />
      <p className="rpt-beginning-name">
        <bdi>{name}</bdi>
      </p>
      <p className="rpt-beginning-text">{strings.beginning(name)}</p>
    </div>
  )
}

/**
 * Shown instead of the composer: the reason why the user cannot write. If the user has blocked the
 * person, a button ends the block.
 */
function Refusal({
  person,
  name,
  isReadOnly,
}: {
  person: AvatarPerson | null
  name: string
  isReadOnly: boolean
}): ReactNode {
  const strings = useStrings()
  const client = useChatClient()
  const isBlocked = useIsBlocked(person?.id, isReadOnly)
  return (
    <p className="rpt-notice" data-slot="cannot-send">
      {isReadOnly ? strings.readOnly : isBlocked ? strings.youBlocked(name) : strings.cannotMessage}{' '}
      {isBlocked && person && (
        <button type="button" className="rpt-text-button" onClick={() => void client.unblock(person.id)}>
          {strings.unblock}
        </button>
      )}
    </p>
  )
}
