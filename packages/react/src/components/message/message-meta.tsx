'use client'

import type { MessageState, TimelineMessage } from '@rapport-chat/client'
import { Check, CheckCheck, CircleAlert, Clock } from 'lucide-react'
import type { ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { Time } from '../../parts/time'

interface MessageMetaProps {
  message: TimelineMessage
  isOwn: boolean
  showTimestamp: boolean
  onShowHistory?: ((message: TimelineMessage) => void) | undefined
}

/** "edited", the time and the state. It floats at the end of the last line if there is room. */
export function MessageMeta({ message, isOwn, showTimestamp, onShowHistory }: MessageMetaProps): ReactNode {
  const strings = useStrings()
  const isEdited = message.is_edited && !message.is_deleted
  const showState = isOwn && !message.is_deleted && (showTimestamp || message.state === 'failed')
  if (!isEdited && !showTimestamp && !showState) return null
  return (
    <span className="rpt-meta" data-slot="meta" dir="auto">
      {isEdited &&
        (onShowHistory ? (
          <button type="button" className="rpt-edited" tabIndex={-1} title={strings.editedShowHistory} aria-label={strings.editedShowHistory} onClick={() => onShowHistory(message)}>
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

const ICONS = { pending: Clock, sending: Clock, sent: Check, delivered: CheckCheck, read: CheckCheck, failed: CircleAlert } as const

/** Shape tells the states apart; the filled pair, "read", also has another tone. */
export function StateIcon({ state }: { state: MessageState }): ReactNode {
  const strings = useStrings()
  const Icon = ICONS[state]
  return (
    <span className="rpt-state" data-slot="state" data-state={state} role="img" aria-label={strings.stateMessage[state]} title={strings.stateMessage[state]}>
      <Icon aria-hidden size={state === 'pending' || state === 'sending' ? 12 : 16} strokeWidth={state === 'read' ? 2.75 : 2} />
    </span>
  )
}
