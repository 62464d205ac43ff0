'use client'

import type { MessageState, TimelineMessage } from '@rapport-chat/client'
import { Check, CheckCheck, CircleAlert, Clock } from 'lucide-react'
import type { ReactNode } from 'react'
import { useSlot, useStrings } from '../../context/chat-context'
import { Time } from '../../parts/time'

export interface MessageMetaProps {
  message: TimelineMessage
  isOwn: boolean
  showTimestamp: boolean
  onShowHistory?: ((message: TimelineMessage) => void) | undefined
}

/** Shows "edited", the time and the state, at the end of the last line if there is room. */
export function MessageMeta({ message, isOwn, showTimestamp, onShowHistory }: MessageMetaProps): ReactNode {
  const strings = useStrings()
  const slot = useSlot('meta', 'rpt-meta')
  const isEdited = message.is_edited && !message.is_deleted
  const showState = isOwn && !message.is_deleted && (showTimestamp || message.state === 'failed')
  if (!isEdited && !showTimestamp && !showState) return null
  return (
    <span {...slot} data-slot="meta">
      {isEdited &&
        (onShowHistory ? (
          <button
            type="button"
            className="rpt-edited"
            tabIndex={-1}
            title={strings.editedShowHistory}
            aria-label={strings.editedShowHistory}
            onClick={() => onShowHistory(message)}
          >
            {strings.edited}
          </button>
        ) : (
          <span>{strings.edited}</span>
        ))}
      {showTimestamp && <Time value={message.created_at} />}
      {showState && <StateIcon state={message.state} />}
    </span>
  )
}

const ICONS = { pending: Clock, sending: Clock, sent: Check, delivered: CheckCheck, failed: CircleAlert } as const

/**
 * Each state has its own shape: a clock until the message is sent, one tick (sent), two ticks
 * (delivered), a tick in a full disc (read), or an exclamation mark (failed).
 */
export function StateIcon({ state }: { state: MessageState }): ReactNode {
  const strings = useStrings()
  return (
    <span
      className="rpt-state"
      data-slot="state"
      data-state={state}
      role="img"
      aria-label={strings.stateMessage[state]}
      title={strings.stateMessage[state]}
    >
      {state === 'read' ? (
        <ReadIcon />
      ) : (
        <Glyph icon={ICONS[state]} size={state === 'pending' || state === 'sending' ? 12 : 16} />
      )}
    </span>
  )
}

function Glyph({ icon: Icon, size }: { icon: typeof Clock; size: number }): ReactNode {
  return <Icon aria-hidden size={size} />
}

function ReadIcon(): ReactNode {
  return (
    <svg className="rpt-read" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <circle cx="8" cy="8" r="6.5" />
      <path d="m5.2 8.2 2 2 3.7-4" />
    </svg>
  )
}
