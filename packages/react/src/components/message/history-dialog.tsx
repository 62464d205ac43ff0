'use client'

import type { ChatError, EarlierWording, Result, TimelineMessage } from '@rapport-chat/client'
import { useEffect, useState, type ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { useLatest } from '../../context/use-latest'
import { Dialog } from '../../parts/dialog'
import { Time } from '../../parts/time'

interface HistoryDialogProps {
  message: TimelineMessage
  load: () => Promise<Result<readonly EarlierWording[]>>
  onClose: () => void
}

/** The earlier versions of an edited message, newest first. */
export function HistoryDialog({ message, load, onClose }: HistoryDialogProps): ReactNode {
  const strings = useStrings()
  const [versions, setVersions] = useState<readonly EarlierWording[] | null>(null)
  const [error, setError] = useState<ChatError | null>(null)
  const ask = useLatest(load)

  useEffect(() => {
    let isGone = false
    void ask.current().then((result) => {
      if (isGone) return
      setVersions(result.data)
      setError(result.error)
    })
    return () => {
      isGone = true
    }
  }, [ask])

  const newestFirst = [...(versions ?? [])].sort((a, b) => b.version - a.version)
  return (
    <Dialog title={strings.historyTitle} onClose={onClose}>
      {error && (
        <p role="alert" className="rpt-dialog-text">
          {error.message}
        </p>
      )}
      <ol className="rpt-versions" aria-busy={versions === null && !error}>
        <li className="rpt-version">
          <span className="rpt-version-title">{strings.currentVersion}</span>
          <p className="rpt-version-text" dir="auto">
            {message.content}
          </p>
        </li>
        {newestFirst.map((version) => (
          <li key={version.version} className="rpt-version">
            <span className="rpt-version-title">
              {strings.historyVersion(version.version)} · <Time value={version.edited_at} kind="moment" />
            </span>
            <p className="rpt-version-text" dir="auto">
              {version.previous_content}
            </p>
          </li>
        ))}
      </ol>
    </Dialog>
  )
}
