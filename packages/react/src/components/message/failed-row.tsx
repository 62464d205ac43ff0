'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useSlot, useStrings } from '../../context/chat-context'
import type { MessageActions } from '../../list/message-actions'

export interface FailedRowProps {
  message: TimelineMessage
  actions: MessageActions | undefined
}

/** Says why a message was not sent and what can be done. */
export function FailedRow({ message, actions }: FailedRowProps): ReactNode {
  const strings = useStrings()
  const slot = useSlot('failed', 'rpt-failed')
  const reason = message.error?.code === 'expired' ? strings.expiredUnsent : message.error?.message
  return (
    <div {...slot} data-slot="failed" role="group" aria-label={strings.notSent}>
      <span className="rpt-failed-text">
        {strings.notSent}
        {reason && (
          <>
            . <bdi>{reason}</bdi>
          </>
        )}
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
