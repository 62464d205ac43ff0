'use client'

import { useCallback, useEffect, useRef, useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useLatest } from '../context/use-latest'
import { useChatState } from '../context/use-store'
import { isListed } from '../format/listed'
import { ConversationsList } from './conversations-list'
import { EmptyState } from './empty-state'
import { NewChatDialog } from './new-chat-dialog'
import { ShortcutsDialog } from './shortcuts-dialog'
import { useKeyboardInset } from './use-keyboard-inset'
import { useShortcuts } from './use-shortcuts'
import { UserChatInterface } from './user-chat-interface'

export interface MessengerProps {
  /** The open conversation, if the application controls it. If omitted, the component holds it. */
  conversationId?: string | null
  /** The message at which the conversation opens. */
  messageId?: string
  onOpen?: (conversationId: string | null, messageId?: string) => void
  density?: 'comfortable' | 'compact'
}

interface Place {
  readonly conversationId: string | null
  readonly messageId?: string | undefined
  /** A number that distinguishes two jumps to the same message. */
  readonly visit: number
}

/**
 * The list and the open conversation: side by side if there is room, otherwise one at a time.
 * It fills its container, so the container needs a height.
 */
export function Messenger({ conversationId, messageId, onOpen, density = 'comfortable' }: MessengerProps): ReactNode {
  const { strings, onNavigate } = useChatContext()
  const { userId } = useChatClient()
  const [own, setOwn] = useState<Place>({ conversationId: null, visit: 0 })
  const hasNone = useChatState((state) =>
    state.conversations.every((one) => one.is_archived || !isListed(one, userId)),
  )
  const isLoading = useChatState((state) => state.conversationsStatus === 'loading')
  const isControlled = conversationId !== undefined
  const place: Place = isControlled ? { conversationId, messageId, visit: own.visit } : own
  const [isFinding, setFinding] = useState(false)
  const [isHelping, setHelping] = useState(false)
  const root = useRef<HTMLDivElement>(null)

  // `open` never changes, so that opening a conversation does not render every item of the list.
  const callbacks = useLatest({ onOpen, onNavigate })
  const open = useCallback(
    (id: string | null, message?: string) => {
      setOwn((old) => ({ conversationId: id, messageId: message, visit: old.visit + 1 }))
      callbacks.current.onOpen?.(id, message)
      callbacks.current.onNavigate?.(
        id === null
          ? { to: 'list' }
          : { to: 'conversation', conversationId: id, ...(message !== undefined && { messageId: message }) },
      )
    },
    [callbacks],
  )
  const select = useCallback(({ id }: { id: string }, message?: string) => open(id, message), [open])
  const find = useCallback(() => setFinding(true), [])
  /** Whether the search must receive the focus as soon as the list is shown. */
  const isWanted = useRef(false)
  useShortcuts(root, {
    current: place.conversationId,
    open,
    find,
    search: () => {
      const field = searchField(root.current)
      if (field && field.getClientRects().length > 0) field.focus()
      else {
        // A narrow container shows either the open conversation or the list with the search.
        isWanted.current = true
        open(null)
      }
    },
    help: () => setHelping(true),
  })

  useKeyboardInset(root)

  // After "Back" on a narrow screen, the focus returns to the conversation that was open.
  const last = useRef<string | null>(null)
  useEffect(() => {
    if (place.conversationId === null && isWanted.current) searchField(root.current)?.focus()
    else if (place.conversationId === null && last.current && document.activeElement === document.body)
      root.current
        ?.querySelector<HTMLElement>(`[data-conversation="${CSS.escape(last.current)}"]`)
        ?.focus({ preventScroll: true })
    isWanted.current = false
    last.current = place.conversationId
  }, [place.conversationId])

  return (
    <div
      ref={root}
      className="rpt rpt-messenger"
      data-slot="messenger"
      data-open={place.conversationId !== null || undefined}
    >
      <div className="rpt-pane-list" data-slot="list-pane">
        <ConversationsList
          activeConversationId={place.conversationId}
          density={density}
          onConversationSelect={select}
          onNewConversation={find}
          showConnection={place.conversationId === null}
        />
      </div>
      <div className="rpt-pane-chat" data-slot="chat-pane">
        {place.conversationId === null ? (
          // While the list is loading, it is not known which empty state applies.
          !(hasNone && isLoading) && (
            <EmptyState variant={hasNone ? 'no-conversations' : 'no-selection'} onNewConversation={find} />
          )
        ) : (
          <UserChatInterface
            // A second jump to the same message must open the conversation there again.
            key={place.messageId === undefined ? place.conversationId : `${place.conversationId} ${place.visit}`}
            conversationId={place.conversationId}
            onBack={() => open(null)}
            {...(place.messageId !== undefined && { focusMessageId: place.messageId })}
          />
        )}
      </div>
      <NewChatDialog isOpen={isFinding} onClose={() => setFinding(false)} onCreateConversation={(id) => open(id)} />
      {isHelping && <ShortcutsDialog title={strings.shortcuts} onClose={() => setHelping(false)} />}
    </div>
  )
}

function searchField(root: HTMLElement | null): HTMLElement | null | undefined {
  return root?.querySelector<HTMLElement>('[data-slot="search"]')
}
