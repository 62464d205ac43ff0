'use client'

import type { TimelineMessage } from '@rapport-chat/client'
import { Copy, EyeOff, Flag, MailOpen, Pencil, Pin, PinOff, Reply, Trash2 } from 'lucide-react'
import type { ReactNode } from 'react'
import { useChatContext } from '../../context/chat-context'
import type { MessageActions } from '../../list/message-actions'
import { Menu, type MenuItem } from '../../parts/menu'
import type { PopupAnchor } from '../../parts/popup'
import { QuickReactions } from './reaction-menu'

interface MessageMenuProps {
  message: TimelineMessage
  anchor: PopupAnchor
  actions: MessageActions
  onClose: () => void
  onRestoreFocus: () => void
  onMoreEmoji: () => void
  onPin: () => void
  onHide: () => void
  onReport: () => void
}

const ICON = 18

/** The menu with all actions on a message. */
export function MessageMenu({
  message,
  anchor,
  actions,
  onClose,
  onRestoreFocus,
  onMoreEmoji,
  onPin,
  onHide,
  onReport,
}: MessageMenuProps): ReactNode {
  const { strings, letterShortcuts } = useChatContext()
  const key = (letter: string): { shortcut: string } | undefined => (letterShortcuts ? { shortcut: letter } : undefined)
  const items: (MenuItem | 'separator' | false)[] = [
    actions.canReply && {
      id: 'reply',
      label: strings.reply,
      icon: <Reply size={ICON} className="rpt-mirrored" />,
      run: () => actions.reply(message),
      ...key('R'),
    },
    actions.canEdit(message) && {
      id: 'edit',
      label: strings.edit,
      icon: <Pencil size={ICON} />,
      run: () => actions.edit(message),
      ...key('E'),
    },
    message.content !== '' && {
      id: 'copy',
      label: strings.copyText,
      icon: <Copy size={ICON} />,
      run: () => actions.copy(message),
      ...key('C'),
    },
    {
      id: 'pin',
      label: message.is_pinned ? strings.unpinMessage : strings.pinMessage,
      icon: message.is_pinned ? <PinOff size={ICON} /> : <Pin size={ICON} />,
      run: onPin,
    },
    !message.isOwn && {
      id: 'unread',
      label: strings.markUnreadFromHere,
      icon: <MailOpen size={ICON} />,
      run: () => actions.markUnread(message),
      ...key('U'),
    },
    'separator',
    !message.isOwn && { id: 'report', label: strings.report, icon: <Flag size={ICON} />, run: onReport },
    { id: 'hide', label: strings.deleteForMe, icon: <EyeOff size={ICON} />, run: onHide },
    message.isOwn && {
      id: 'delete',
      label: strings.deleteForAll,
      icon: <Trash2 size={ICON} />,
      isDanger: true,
      run: () => actions.remove(message),
    },
  ]
  return (
    <Menu
      anchor={anchor}
      label={strings.messageActions}
      header={
        <QuickReactions
          message={message}
          onSelect={(emoji) => (onClose(), actions.react(message, emoji))}
          onMore={onMoreEmoji}
        />
      }
      items={items.filter((item) => item !== false)}
      onClose={onClose}
      onRestoreFocus={onRestoreFocus}
    />
  )
}
