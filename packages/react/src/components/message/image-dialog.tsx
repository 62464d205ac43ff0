'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useStrings } from '../../context/chat-context'
import { safeAddress } from '../../format/address'
import { inline } from '../../format/text'
import { Dialog } from '../../parts/dialog'

export function ImageDialog({ message, onClose }: { message: TimelineMessage; onClose: () => void }): ReactNode {
  const strings = useStrings()
  const name = inline(message.file_name) || strings.photo
  return (
    <Dialog title={name} kind="wide" onClose={onClose}>
      <img
        className="rpt-lightbox"
        referrerPolicy="no-referrer"
        src={safeAddress(message.file_url) ?? undefined}
        alt={strings.photoNamed(name)}
      />
    </Dialog>
  )
}
