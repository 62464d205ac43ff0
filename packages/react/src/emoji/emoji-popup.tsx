'use client'

import { lazy, Suspense, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { Popup, type PopupAnchor } from '../parts/popup'

// The picker and its data are loaded when the popup is opened for the first time.
const EmojiPicker = lazy(() => import('./emoji-picker'))

export interface EmojiPopupProps {
  anchor: PopupAnchor
  onSelect: (emoji: string) => void
  onClose: () => void
  onRestoreFocus?: () => void
}

export function EmojiPopup({ anchor, onSelect, onClose, onRestoreFocus }: EmojiPopupProps): ReactNode {
  const { strings, emojiDataUrl } = useChatContext()
  if (!emojiDataUrl) return null
  return (
    <Popup
      anchor={anchor}
      onClose={onClose}
      label={strings.emoji}
      role="dialog"
      className="rpt-emoji-popup"
      {...(onRestoreFocus && { onRestoreFocus })}
    >
      <Suspense fallback={<div className="rpt-emoji-loading">{strings.emojiLoading}</div>}>
        <EmojiPicker dataUrl={emojiDataUrl} onSelect={onSelect} />
      </Suspense>
    </Popup>
  )
}
