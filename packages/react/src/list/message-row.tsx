'use client'

import { Ellipsis, Reply, SmilePlus } from 'lucide-react'
import { memo, useMemo, useRef, useSyncExternalStore, type PointerEvent, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useBrowserLayoutEffect } from '../context/use-latest'
import { useTimeFormat, useToday } from '../context/use-time'
import { MessageBubble } from '../components/message-bubble'
import { IconButton } from '../parts/icon-button'
import { Time } from '../parts/time'
import { isLive, type MessageActions } from './message-actions'
import { rowLabel } from './row-label'
import type { Row } from './rows'
import { ACTIVE, HIGHLIGHTED, TOOLBAR, type RowState } from './row-state'

/** A press of this length opens the actions, as is usual on phones. */
const LONG_PRESS_MS = 450

/** A touch that moves further than this is a scroll and not a press. */
const PRESS_MOVE_PX = 8

interface MessageRowProps extends Row {
  state: RowState
  actions: MessageActions
  showAvatar: boolean
}

export const MessageRow = memo(function MessageRow({
  message,
  position,
  startsDay,
  isFirstUnread,
  isNewest,
  state,
  actions,
  showAvatar,
}: MessageRowProps): ReactNode {
  const { strings, isMounted, doubleClickReaction } = useChatContext()
  const format = useTimeFormat()
  const today = useToday()
  const { key } = message
  const flags = useSyncExternalStore(
    state.subscribe,
    () => state.flags(key, isNewest),
    () => 0,
  )
  const row = useRef<HTMLDivElement>(null)
  useBrowserLayoutEffect(() => {
    // If the change removed the element with the focus, such as a reaction, the row receives the
    // focus. Browsers report no event for such a removal.
    if (state.isFocused(key) && document.activeElement === document.body) row.current?.focus({ preventScroll: true })
  }, [message, state, key])
  const longPress = useLongPress((anchor) => actions.openMenu(message, anchor))
  const day = isMounted ? format.day(new Date(message.created_at), today) : ''
  const label = useMemo(
    () => (isMounted ? rowLabel(message, strings, format, today) : undefined),
    [message, strings, format, today, isMounted],
  )

  return (
    <>
      {startsDay && (
        <div className="rpt-day" data-slot="day" aria-hidden="true">
          <span>{day}</span>
        </div>
      )}
      {isFirstUnread && (
        <div className="rpt-unread-line" data-slot="unread-line" aria-hidden="true">
          <span>{strings.newMessages}</span>
        </div>
      )}
      <div
        ref={row}
        className="rpt-row"
        data-slot="message-row"
        role="listitem"
        aria-setsize={-1}
        aria-label={isFirstUnread ? `${strings.newMessages}. ${label}` : label}
        tabIndex={flags & ACTIVE ? 0 : -1}
        data-key={key}
        data-id={message.id}
        data-seq={Number.isFinite(message.seq) ? message.seq : undefined}
        data-day={day}
        data-own={message.isOwn || undefined}
        data-start={(position === 'first' || position === 'single') && !startsDay && !isFirstUnread ? '' : undefined}
        data-highlighted={(flags & HIGHLIGHTED) !== 0 || undefined}
        data-new={message.state === 'sending' || message.state === 'pending' || undefined}
        {...(isLive(message) && longPress)}
        {...(isLive(message) &&
          doubleClickReaction && { onDoubleClick: () => actions.react(message, doubleClickReaction) })}
      >
        <MessageBubble
          message={message}
          position={position}
          showAvatar={showAvatar && !message.isOwn}
          actions={actions}
        />
        {(flags & TOOLBAR) !== 0 && isLive(message) && message.message_type !== 'system' && (
          <Toolbar message={message} position={position} actions={actions} />
        )}
      </div>
    </>
  )
})

function Toolbar({ message, position, actions }: Pick<MessageRowProps, 'message' | 'position' | 'actions'>): ReactNode {
  const { strings } = useChatContext()
  const toolbar = useRef<HTMLDivElement>(null)
  useBrowserLayoutEffect(() => {
    const element = toolbar.current
    const row = element?.parentElement
    const bubble = row?.firstElementChild
    if (!element || !row || !bubble) return
    // The toolbar is measured while it floats above the bubble. Beside it, it has no width.
    element.removeAttribute('data-beside')
    element.toggleAttribute('data-beside', bubble.clientWidth + element.offsetWidth <= row.clientWidth)
  })
  return (
    <div
      ref={toolbar}
      className="rpt-toolbar"
      data-slot="toolbar"
      role="toolbar"
      aria-label={strings.messageActions}
    >
      <IconButton
        label={strings.react}
        size="small"
        tabIndex={-1}
        onClick={(event) => actions.openReactions(message, event.currentTarget)}
      >
        <SmilePlus aria-hidden size={18} />
      </IconButton>
      {actions.canReply && (
        <IconButton label={strings.reply} size="small" tabIndex={-1} onClick={() => actions.reply(message)}>
          <Reply aria-hidden size={18} className="rpt-mirrored" />
        </IconButton>
      )}
      <IconButton
        label={strings.moreActions}
        size="small"
        tabIndex={-1}
        aria-haspopup="menu"
        onClick={(event) => actions.openMenu(message, event.currentTarget)}
      >
        <Ellipsis aria-hidden size={18} />
      </IconButton>
      {(position === 'first' || position === 'middle') && (
        <Time value={message.created_at} className="rpt-toolbar-time" />
      )}
    </div>
  )
}

/** Opens a menu on a long press, on a right click and on the keyboard's menu key. */
function useLongPress(
  open: (anchor: { x: number; y: number }) => void,
): Record<string, (event: PointerEvent<HTMLElement>) => void> {
  const press = useRef<{ x: number; y: number; timer: ReturnType<typeof setTimeout> } | null>(null)
  const cancel = (): void => {
    clearTimeout(press.current?.timer)
    press.current = null
  }
  return {
    onPointerDown: (event) => {
      if (event.pointerType !== 'touch') return
      const { clientX: x, clientY: y } = event
      press.current = { x, y, timer: setTimeout(() => open({ x, y }), LONG_PRESS_MS) }
    },
    onPointerMove: (event) => {
      const start = press.current
      if (start && Math.hypot(event.clientX - start.x, event.clientY - start.y) > PRESS_MOVE_PX) cancel()
    },
    onPointerUp: cancel,
    onPointerCancel: cancel,
    onContextMenu: (event) => {
      // On a selection or a link, the browser's own menu opens.
      if (event.target instanceof HTMLAnchorElement || (document.getSelection()?.toString() ?? '') !== '') return
      event.preventDefault()
      if (press.current || event.clientX || event.clientY) open({ x: event.clientX, y: event.clientY })
      else {
        const box = event.currentTarget.getBoundingClientRect()
        open({ x: box.left + box.width / 2, y: box.top + box.height / 2 })
      }
    },
  }
}
