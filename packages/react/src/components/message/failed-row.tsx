'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import type { MessageActions } from '../../list/message-actions'

/** Shows why a message was not sent, with buttons to retry, copy or delete it. */
export function FailedRow({
  message,
  actions,
}: {
  message: TimelineMessage
  actions: MessageActions | undefined
}): ReactNode {
  const strings = useStrings()
  const reason = message.error?.code === 'expired' ? strings.expiredUnsent : message.error?.message
  return (
    <div className="rpt-failed" data-slot="failed" role="group" aria-label={strings.notSent}>
      <span className="rpt-failed-text">
        {strings.notSent}
        {reason ? `. ${reason}` : ''}
      </span>
      {actions && (
        <span className="rpt-failed-actions">
          {message.canRetry ? (
            <button type="button" className="rpt-text-button" onClick={() => actions.retry(message)}>
              {strings.retry}
            </button>
          ) : (
            <button type="button" className="rpt-text-button" onClick={() => actions.copy(message)}>
              {strings.copy}
            </button>
          )}
          <button type="button" className="rpt-text-button" onClick={() => actions.discard(message)}>
            {strings.remove}
          </button>
        </span>
      )}
    </div>
  )
}
