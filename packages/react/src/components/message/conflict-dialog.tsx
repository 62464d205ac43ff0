'use client'

import type { ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { Dialog } from '../../parts/dialog'

interface ConflictDialogProps {
  theirs: string
  mine: string
  onKeepMine: () => void
  onClose: () => void
}

/** Shown when another window has edited the same message. The user chooses a version. */
export function ConflictDialog({ theirs, mine, onKeepMine, onClose }: ConflictDialogProps): ReactNode {
  const strings = useStrings()
  return (
    <Dialog
      title={strings.conflictTitle}
      kind="question"
      onClose={onClose}
      footer={
        <>
          <button type="button" className="rpt-button" data-autofocus onClick={onClose}>
            {strings.keepTheirs}
          </button>
          <button
            type="button"
            className="rpt-button"
            data-kind="primary"
            onClick={() => {
              onClose()
              onKeepMine()
            }}
          >
            {strings.useYours}
          </button>
        </>
      }
    >
      <p className="rpt-dialog-text">{strings.conflictExplanation}</p>
      <ul className="rpt-versions">
        <li className="rpt-version">
          <span className="rpt-version-title">{strings.theirVersion}</span>
          <p className="rpt-version-text" dir="auto">
            {theirs}
          </p>
        </li>
        <li className="rpt-version">
          <span className="rpt-version-title">{strings.yourVersion}</span>
          <p className="rpt-version-text" dir="auto">
            {mine}
          </p>
        </li>
      </ul>
    </Dialog>
  )
}
