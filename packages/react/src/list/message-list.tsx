'use client'

import type { ConversationClient, Timeline } from '@rapport-chat/client'
import { ArrowDown } from 'lucide-react'
import { useEffect, useImperativeHandle, useMemo, useReducer, useRef, useState, type ReactNode, type Ref } from 'react'
import { useChatContext } from '../context/chat-context'
import { useBrowserLayoutEffect } from '../context/use-latest'
import { EmptyState } from '../components/empty-state'
import { onListKey } from './list-keys'
import type { MessageActions } from './message-actions'
import { ChunkWatcher, MessageChunk } from './message-chunk'
import { MountedChunks } from './mounted-chunks'
import { RowState } from './row-state'
import { RowLayout } from './rows'
import { useHeldTail } from './use-held-tail'
import { neededChunk, useScroll } from './use-scroll'
import { ListSkeleton, PageError, PageSkeleton } from './skeleton'

export interface MessageListHandle {
  focus(): void
  toBottom(): void
}

export interface MessageListProps {
  conversation: ConversationClient
  timeline: Timeline
  /** The other member's name, for the list's label. */
  name: string
  actions: MessageActions
  /** Shown above the first message of the conversation. */
  beginning?: ReactNode
  /** Shown at the end of the list, for example the typing indicator. */
  end?: ReactNode
  showAvatars?: boolean
  /** Gives the list the role `log`. As a live region, it can make screen readers read history. */
  logRole?: boolean
  onLeave?: () => void
  handle?: Ref<MessageListHandle>
}

/** The messages of one conversation. Mount it with `key={conversationId}`. */
export function MessageList(props: MessageListProps): ReactNode {
  const {
    conversation,
    timeline,
    name,
    actions,
    beginning,
    end,
    showAvatars = false,
    logRole = false,
    onLeave,
    handle,
  } = props
  const { strings, letterShortcuts } = useChatContext()
  const scroller = useRef<HTMLElement>(null)
  const rowsElement = useRef<HTMLDivElement>(null)
  const [state] = useState(() => new RowState())
  const [watcher] = useState(() => new ChunkWatcher())
  const { firstUnreadSeq } = timeline
  const messages = useHeldTail(scroller, timeline.messages)

  const [rowLayout] = useState(() => new RowLayout())
  const chunks = useMemo(() => rowLayout.layout(messages, firstUnreadSeq), [rowLayout, messages, firstUnreadSeq])
  const byKey = useMemo(() => new Map(messages.map((message) => [message.key, message])), [messages])

  const [mounting] = useState(() => new MountedChunks())
  const [, renderAgain] = useReducer((count: number) => count + 1, 0)
  const { mounted, hasMore } = mounting.of(chunks, neededChunk(conversation, timeline))
  const mountMore = (): void => {
    mounting.mountMore(chunks)
    renderAgain()
  }

  const scroll = useScroll({
    scroller,
    rows: rowsElement,
    conversation,
    timeline,
    state,
    watcher,
    mountMore: hasMore ? mountMore : null,
  })

  useEffect(() => (scroller.current ? watcher.start(scroller.current) : undefined), [watcher])

  // The newest row has the tab stop until another row receives the focus. If that row has lost the
  // focus, the next message moves the tab stop back to the newest row.
  const active = state.getActive()
  useBrowserLayoutEffect(() => {
    if (active !== null && (!byKey.has(active) || !rowsElement.current?.contains(document.activeElement)))
      state.setActive(null)
  }, [state, active, byKey])

  const elements = (): HTMLElement[] => [...(rowsElement.current?.querySelectorAll<HTMLElement>('[data-key]') ?? [])]
  const focusRow = (row: HTMLElement): void => {
    state.setActive(row.dataset['key'] ?? null)
    row.focus({ preventScroll: true })
    scroll.reveal(row)
  }
  const focusNewest = (): void => {
    scroll.toNewest()
    const last = elements().at(-1)
    if (last) focusRow(last)
  }
  useImperativeHandle(handle, () => ({ focus: focusNewest, toBottom: scroll.toBottom }))

  const isEmpty = messages.length === 0
  const isLoading = isEmpty && timeline.status !== 'ready'
  if (timeline.status === 'error' && isEmpty)
    return (
      <div className="rpt-list" data-slot="message-list">
        <EmptyState
          variant="error"
          description={timeline.error?.message ?? strings.couldNotLoad}
          {...(timeline.error && { code: timeline.error.code })}
          action={{ label: strings.tryAgain, onClick: () => void conversation.jumpToNewest() }}
        />
      </div>
    )

  return (
    <div className="rpt-list" data-slot="message-list">
      <section
        ref={scroller}
        className="rpt-scroller"
        data-slot="scroller"
        aria-label={strings.messagesWith(name)}
        tabIndex={0}
        aria-busy={timeline.status === 'loading'}
      >
        <div
          ref={rowsElement}
          className="rpt-rows"
          data-slot="rows"
          onPointerOver={(event) => {
            if (event.pointerType === 'mouse')
              state.setHovered((event.target as Element).closest('[data-key]')?.getAttribute('data-key') ?? null)
          }}
          onPointerLeave={() => state.setHovered(null)}
          onFocus={(event) => {
            const key = event.target.closest('[data-key]')?.getAttribute('data-key') ?? null
            if (key) state.setActive(key)
            // A click also focuses the row, but the pointer already shows the row's toolbar.
            state.setFocused(event.target.matches(':focus-visible') ? key : null)
          }}
          onBlur={(event) => {
            if (!event.currentTarget.contains(event.relatedTarget)) state.setFocused(null)
          }}
          onKeyDown={(event) =>
            onListKey(event, {
              rows: elements,
              messageOf: (key) => byKey.get(key),
              focusRow,
              toNewest: focusNewest,
              toComposer: () => onLeave?.(),
              actions,
              letters: letterShortcuts,
            })
          }
        >
          {isLoading && <ListSkeleton label={strings.loadingMessages} />}
          {!isLoading && !hasMore && timeline.pageError && timeline.hasOlder && (
            <PageError onRetry={() => void conversation.loadOlder()} />
          )}
          {!isLoading && (hasMore || (timeline.hasOlder && !timeline.pageError)) && <PageSkeleton />}
          {!isLoading && !hasMore && !timeline.hasOlder && beginning}
          <div data-slot="chunks" {...(isEmpty ? {} : { role: logRole ? 'log' : 'list' })}>
            {mounted.map((chunk) => (
              <MessageChunk
                key={chunk.id}
                chunk={chunk}
                watcher={watcher}
                state={state}
                actions={actions}
                showAvatar={showAvatars}
              />
            ))}
          </div>
          {timeline.hasNewer &&
            (timeline.pageError ? <PageError onRetry={() => void conversation.loadNewer()} /> : <PageSkeleton />)}
          {end}
        </div>
      </section>
      <div
        className="rpt-day-float"
        data-slot="day-float"
        data-visible={scroll.day !== null || undefined}
        aria-hidden="true"
      >
        <span>{scroll.day}</span>
      </div>
      {scroll.pill && (
        <button
          type="button"
          className="rpt-pill"
          data-slot="pill"
          data-count={scroll.newCount}
          aria-label={scroll.newCount > 0 ? strings.newMessagesBelow(scroll.newCount) : strings.toNewest}
          onClick={(event) => {
            // The pill disappears at the end of the list, so its focus moves to the list.
            if (document.activeElement === event.currentTarget) scroller.current?.focus({ preventScroll: true })
            scroll.followPill()
          }}
        >
          {scroll.newCount > 0 && <span>{strings.newMessagesBelow(scroll.newCount)}</span>}
          <ArrowDown aria-hidden size={18} />
        </button>
      )}
    </div>
  )
}
