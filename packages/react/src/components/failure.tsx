'use client'

import type { ChatError } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'

/** Shown in place of content that could not be loaded: the reason, and a button to try again. */
export function Failure({ error, onRetry }: { error: ChatError; onRetry: () => void }): ReactNode {
  const strings = useStrings()
  return (
    <div className="rpt-hint" data-slot="failure" role="alert">
      <p>{error.message}</p>
      <p className="rpt-empty-code">{strings.errorCode(error.code)}</p>
      <button type="button" className="rpt-text-button" onClick={onRetry}>
        {strings.tryAgain}
      </button>
    </div>
  )
}
