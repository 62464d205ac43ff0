'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { Download, FileText } from 'lucide-react'
import type { ReactNode } from 'react'
import { useSlot, useStrings } from '../../context/chat-context'
import { safeAddress } from '../../format/address'
import { inline } from '../../format/text'
import { fileSize } from '../../format/time'

/** The aspect ratio of an image whose size the sender did not report. */
const DEFAULT_RATIO = 4 / 3

export interface AttachmentProps {
  message: TimelineMessage
  onOpenImage?: ((message: TimelineMessage) => void) | undefined
}

/** A picture or a file. */
export function Attachment({ message, onOpenImage }: AttachmentProps): ReactNode {
  const strings = useStrings()
  const imageSlot = useSlot('image', 'rpt-image')
  const fileSlot = useSlot('file', 'rpt-file')
  const address = safeAddress(message.file_url)
  const name = inline(message.file_name) || (message.message_type === 'image' ? strings.photo : strings.file)

  if (message.message_type === 'image' && address)
    return (
      <button
        {...imageSlot}
        type="button"
        data-slot="image"
        tabIndex={-1}
        aria-label={strings.openPhoto(name)}
        style={{ ...imageSlot.style, aspectRatio: ratioOf(message) }}
        onClick={() => onOpenImage?.(message)}
      >
        {/* The button reserves the size of the image, so nothing moves when it loads. */}
        <img referrerPolicy="no-referrer" src={address} alt="" loading="lazy" decoding="async" />
      </button>
    )
  return (
    <a
      {...fileSlot}
      data-slot="file"
      href={address ?? undefined}
      download={name}
      tabIndex={-1}
      target="_blank"
      rel="noopener noreferrer nofollow ugc"
    >
      <span className="rpt-file-icon" aria-hidden="true">
        <FileText size={20} />
      </span>
      <span className="rpt-file-text">
        <span className="rpt-file-name" dir="auto">
          {name}
        </span>
        {message.file_size !== null && (
          <span className="rpt-file-size">{fileSize(message.file_size, strings.locale)}</span>
        )}
      </span>
      <Download className="rpt-file-get" aria-hidden size={18} />
    </a>
  )
}

/** Returns the aspect ratio (width / height), limited to values that fit into a bubble. */
function ratioOf({ metadata }: TimelineMessage): number {
  const { width, height } = metadata as { width?: unknown; height?: unknown }
  if (typeof width !== 'number' || typeof height !== 'number' || width <= 0 || height <= 0) return DEFAULT_RATIO
  return Math.min(3, Math.max(0.6, width / height))
}
