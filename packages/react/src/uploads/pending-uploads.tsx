'use client'

import { FileText, X } from 'lucide-react'
import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { inline } from '../format/text'
import { fileSize } from '../format/time'
import { IconButton } from '../parts/icon-button'
import type { PendingUpload } from './uploads'
import type { UploadsState } from './use-uploads'

type PendingUploadsProps = Pick<UploadsState, 'pending' | 'retry' | 'cancel'>

/** The files that are being uploaded, below the messages and in bubbles like theirs. */
export function PendingUploads({ pending, ...rest }: PendingUploadsProps): ReactNode {
  const strings = useStrings()
  if (pending.length === 0) return null
  return (
    <ul data-slot="uploads" aria-label={strings.uploads}>
      {pending.map((upload) => (
        <li key={upload.id} className="rpt-row" data-own data-start="">
          <Row upload={upload} {...rest} />
        </li>
      ))}
    </ul>
  )
}

function Row({ upload, retry, cancel }: { upload: PendingUpload } & Omit<PendingUploadsProps, 'pending'>): ReactNode {
  const strings = useStrings()
  const { id, file, preview, progress, error } = upload
  const name = inline(file.name) || strings.file
  const percent = new Intl.NumberFormat(strings.locale, { style: 'percent' }).format(progress)
  const hasFailed = error !== null
  return (
    <div className="rpt-message" data-slot="upload" data-own data-status={hasFailed ? 'failed' : 'sending'}>
      <div className="rpt-message-body">
        <div className="rpt-bubble" data-image={preview !== null || undefined}>
          {preview && <img className="rpt-image rpt-upload-preview" src={preview} alt={strings.photoNamed(name)} />}
          <div className="rpt-file rpt-upload">
            {!preview && (
              <span className="rpt-file-icon" aria-hidden="true">
                <FileText size={20} />
              </span>
            )}
            <span className="rpt-file-text">
              <span className="rpt-file-name" dir="auto">
                {name}
              </span>
              <span className="rpt-file-size">
                {fileSize(file.size, strings.locale)}
                {!hasFailed && ` · ${percent}`}
              </span>
            </span>
            {!hasFailed && (
              <IconButton label={strings.cancelUpload} size="small" onClick={() => cancel(id)}>
                <X aria-hidden size={18} />
              </IconButton>
            )}
          </div>
          {!hasFailed && (
            <div
              className="rpt-upload-bar"
              role="progressbar"
              aria-label={name}
              aria-valuemin={0}
              aria-valuemax={100}
              aria-valuenow={Math.round(progress * 100)}
            >
              <span style={{ scale: `${progress} 1` }} />
            </div>
          )}
        </div>
        {hasFailed && (
          <div className="rpt-failed" role="alert">
            <span className="rpt-failed-text">
              {strings.notSent}
              {error && (
                <>
                  . <bdi>{error}</bdi>
                </>
              )}
            </span>
            <span className="rpt-failed-actions">
              <button type="button" className="rpt-text-button" onClick={() => retry(id)}>
                {strings.retry}
              </button>
              <button type="button" className="rpt-text-button" onClick={() => cancel(id)}>
                {strings.remove}
              </button>
            </span>
          </div>
        )}
      </div>
    </div>
  )
}
