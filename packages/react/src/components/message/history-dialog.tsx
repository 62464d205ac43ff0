'use client'

import type { ChatError, EarlierWording, Result, TimelineMessage } from '@rapport-chat/client'
import { useEffect, useState, type ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { useLatest } from '../../context/use-latest'
import { Dialog } from '../../parts/dialog'
import { Time } from '../../parts/time'
import { Failure } from '../failure'

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
  const [attempt, setAttempt] = useState(0)
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
  }, [ask, attempt])

  const newestFirst = [...(versions ?? [])].sort((a, b) => b.version - a.version)
  return (
    <Dialog title={strings.historyTitle} kind="question" onClose={onClose}>
      {error && <Failure error={error} onRetry={() => setAttempt(attempt + 1)} />}
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
