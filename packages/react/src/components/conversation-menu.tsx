'use client'

import type { Conversation, TimelineMessage } from '@rapport-chat/client'
import {
  Archive,
  ArchiveRestore,
  Ban,
  Bell,
  BellOff,
  EllipsisVertical,
  Flag,
  MailOpen,
  Pin,
  PinOff,
  Trash2,
} from 'lucide-react'
import { useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useIsBlocked } from '../hooks/use-is-blocked'
import { isLive } from '../list/message-actions'
import { ConfirmDialog } from '../parts/dialog'
import { IconButton } from '../parts/icon-button'
import { Menu, type MenuItem } from '../parts/menu'
import { ReportDialog } from './message/report-dialog'

/** Actions that the application performs itself instead of the client. */
export interface ConversationHandlers {
  onArchive?: ((conversationId: string) => void) | undefined
  onDelete?: ((conversationId: string) => void) | undefined
}

interface MenuButtonProps extends ConversationHandlers {
  conversation: Conversation
  name: string
  label: string
  size?: 'small' | 'medium'
  tabIndex?: number
}

type Asked = 'clear' | 'block' | { readonly report: TimelineMessage }

const ICON = 18

/** A button that opens the menu with all actions on a conversation. */
export function ConversationMenuButton(props: MenuButtonProps): ReactNode {
  const { conversation, name, label, size = 'medium', tabIndex } = props
  const [anchor, setAnchor] = useState<Element | null>(null)
  const [asked, setAsked] = useState<Asked | null>(null)
  const close = (): void => setAnchor(null)
  return (
    <>
      <IconButton
        label={label}
        size={size}
        className="rpt-item-menu"
        tabIndex={tabIndex}
        aria-haspopup="menu"
        aria-expanded={anchor !== null}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <EllipsisVertical aria-hidden size={size === 'small' ? 18 : 20} />
      </IconButton>
      {anchor && <ConversationMenu {...props} anchor={anchor} onAsk={setAsked} onClose={close} />}
      {asked && (
        <Questions
          asked={asked}
          conversation={conversation}
          name={name}
          onDelete={props.onDelete}
          onClose={() => setAsked(null)}
        />
      )}
    </>
  )
}

interface ConversationMenuProps extends MenuButtonProps {
  anchor: Element
  onAsk: (question: Asked) => void
  onClose: () => void
}

function ConversationMenu(props: ConversationMenuProps): ReactNode {
  const { conversation, name, label, anchor, onAsk, onClose, onArchive } = props
  const { strings } = useChatContext()
  const client = useChatClient()
  const archive = useArchive()
  const { id, is_pinned, is_muted, is_archived, unread_count, marked_unread, other_user: person } = conversation
  const isBlocked = useIsBlocked(person?.id, conversation.can_send)
  const isUnread = unread_count > 0 || marked_unread
  const one = client.conversation(id)
  // A report is always about a message, so the conversation must contain one by another user.
  const theirs = one.getTimeline().messages.findLast((message) => !message.isOwn && isLive(message))
  const items: (MenuItem | 'separator' | false)[] = [
    {
      id: 'pin',
      label: is_pinned ? strings.unpin : strings.pin,
      icon: is_pinned ? <PinOff size={ICON} /> : <Pin size={ICON} />,
      run: () => void client.pin(id, !is_pinned),
    },
    {
      id: 'mute',
      label: is_muted ? strings.unmute : strings.mute,
      icon: is_muted ? <Bell size={ICON} /> : <BellOff size={ICON} />,
      run: () => void client.mute(id, !is_muted),
    },
    {
      id: 'unread',
      label: isUnread ? strings.markRead : strings.markUnread,
      icon: <MailOpen size={ICON} />,
      run: () => void (isUnread ? one.markRead() : one.markUnread()),
    },
    {
      id: 'archive',
      label: is_archived ? strings.unarchive : strings.archive,
      icon: is_archived ? <ArchiveRestore size={ICON} /> : <Archive size={ICON} />,
      run: () => (onArchive ? onArchive(id) : archive(id, name, !is_archived)),
    },
    'separator',
    theirs !== undefined && {
      id: 'report',
      label: strings.report,
      icon: <Flag size={ICON} />,
      run: () => onAsk({ report: theirs }),
    },
    person !== null && {
      id: 'block',
      label: isBlocked ? strings.unblock : strings.block,
      icon: <Ban size={ICON} />,
      run: () => (isBlocked ? void client.unblock(person.id) : onAsk('block')),
    },
    {
      id: 'clear',
      label: strings.clearConversation,
      icon: <Trash2 size={ICON} />,
      isDanger: true,
      run: () => onAsk('clear'),
    },
  ]
  return <Menu anchor={anchor} label={label} items={items.filter((item) => item !== false)} onClose={onClose} />
}

interface QuestionsProps extends Pick<MenuButtonProps, 'conversation' | 'name' | 'onDelete'> {
  asked: Asked
  onClose: () => void
}

function Questions({ asked, conversation, name, onDelete, onClose }: QuestionsProps): ReactNode {
  const { strings, toast } = useChatContext()
  const client = useChatClient()
  const { id, other_user: person } = conversation
  if (asked === 'clear')
    return (
      <ConfirmDialog
        title={strings.clearQuestion}
        text={strings.clearExplanation(name)}
        confirm={strings.remove}
        onConfirm={() => (onDelete ? onDelete(id) : void client.clear(id))}
        onClose={onClose}
      />
    )
  if (asked !== 'block')
    return (
      <ReportDialog
        message={asked.report}
        onReport={(reason) =>
          void client
            .conversation(id)
            .report(asked.report.id, reason)
            .then(({ error }) => toast(error ? { kind: 'error', text: error.message } : { text: strings.reported }))
        }
        onClose={onClose}
      />
    )
  return (
    person && (
      <ConfirmDialog
        title={strings.blockQuestion(name)}
        text={strings.blockExplanation(name)}
        confirm={strings.block}
        onConfirm={() =>
          void client.block(person.id).then(({ error }) => {
            if (error) toast({ kind: 'error', text: error.message })
            else
              toast({
                text: strings.blocked(name),
                action: { label: strings.undo, run: () => void client.unblock(person.id) },
              })
          })
        }
        onClose={onClose}
      />
    )
  )
}

/** Archives or restores a conversation, and offers to undo it. */
export function useArchive(): (id: string, name: string, isArchived: boolean) => void {
  const client = useChatClient()
  const { strings, toast } = useChatContext()
  return (id, name, isArchived) => {
    void client.archive(id, isArchived)
    toast({
      text: isArchived ? strings.archived(name) : strings.unarchived(name),
      action: { label: strings.undo, run: () => void client.archive(id, !isArchived) },
    })
  }
}
