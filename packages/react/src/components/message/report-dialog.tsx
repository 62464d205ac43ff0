'use client'

import type { ReportReason, TimelineMessage } from '@rapport-chat/client'
import { useState, type ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { oneLine } from '../../format/text'
import { Dialog } from '../../parts/dialog'

interface ReportDialogProps {
  message: TimelineMessage
  onReport: (reason: ReportReason) => void
  onClose: () => void
}

export function ReportDialog({ message, onReport, onClose }: ReportDialogProps): ReactNode {
  const strings = useStrings()
  const [reason, setReason] = useState<ReportReason>('spam')
  const reasons = Object.keys(strings.reportReasons) as ReportReason[]
  return (
    <Dialog
      title={strings.reportQuestion}
      kind="question"
      onClose={onClose}
      footer={
        <>
          <button type="button" className="rpt-button" onClick={onClose}>
            {strings.cancel}
          </button>
          <button
            type="button"
            className="rpt-button"
            data-kind="danger"
            onClick={() => {
              onClose()
              onReport(reason)
            }}
          >
            {strings.reportSend}
          </button>
        </>
      }
    >
      <p className="rpt-dialog-text">{strings.reportExplanation}</p>
      <blockquote className="rpt-version-text rpt-reported" dir="auto">
        {oneLine(message.content)}
      </blockquote>
      <fieldset className="rpt-choices">
        <legend className="rpt-hidden">{strings.reportQuestion}</legend>
        {reasons.map((id) => (
          <label key={id} className="rpt-choice">
            <input type="radio" name="reason" value={id} checked={reason === id} onChange={() => setReason(id)} />
            {strings.reportReasons[id]}
          </label>
        ))}
      </fieldset>
    </Dialog>
  )
}
