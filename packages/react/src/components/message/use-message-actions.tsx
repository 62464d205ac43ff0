'use client'

import type { ConversationClient, TimelineMessage } from '@rapport-chat/client'
import { useMemo, useState, type ReactNode } from 'react'
import { useChatContext } from '../../context/chat-context'
import { useLatest } from '../../context/use-latest'
import { useChatState } from '../../context/use-store'
import { EmojiPopup } from '../../emoji/emoji-popup'
import type { MessageActions } from '../../list/message-actions'
import { ConfirmDialog } from '../../parts/dialog'
import type { PopupAnchor } from '../../parts/popup'
import { ConflictDialog } from './conflict-dialog'
import { HistoryDialog } from './history-dialog'
import { ImageDialog } from './image-dialog'
import { MessageMenu } from './message-menu'
import { ReactionMenu } from './reaction-menu'
import { ReportDialog } from './report-dialog'

/** The open panel and its message. */
type Panel =
  | { readonly kind: 'menu' | 'reactions' | 'emoji'; readonly message: TimelineMessage; readonly anchor: PopupAnchor }
  | { readonly kind: 'delete' | 'report' | 'history' | 'image'; readonly message: TimelineMessage }
  | { readonly kind: 'conflict'; readonly message: TimelineMessage; readonly mine: string }

export interface ActionOptions {
  conversation: ConversationClient
  canSend: boolean
  onReply: (message: TimelineMessage) => void
  onEdit: (message: TimelineMessage) => void
}

export interface MessageActionsState {
  actions: MessageActions
  /** The open menu or dialog. Render it once. */
  panels: ReactNode
  /** Saves an edit. If the message was changed in the meantime, the user chooses a version. */
  saveEdit(message: TimelineMessage, content: string): void
}

export function useMessageActions({ conversation, canSend, onReply, onEdit }: ActionOptions): MessageActionsState {
  const { strings, toast, announce } = useChatContext()
  const editWindow = useChatState((state) => state.config?.edit_window_s ?? 0)
  const [panel, setPanel] = useState<Panel | null>(null)
  const callbacks = useLatest({ onReply, onEdit })

  const actions = useMemo<MessageActions>(
    () => ({
      canReply: canSend,
      canEdit: (message) =>
        canSend &&
        message.isOwn &&
        message.message_type === 'text' &&
        !message.is_deleted &&
        isWithin(message.created_at, editWindow),
      react: (message, emoji) => void conversation.react(message.id, emoji),
      reply: (message) => callbacks.current.onReply(message),
      edit: (message) => callbacks.current.onEdit(message),
      copy: async (message) => {
        try {
          await navigator.clipboard.writeText(message.content)
          announce(strings.copied)
          toast({ text: strings.copied })
        } catch {
          toast({ kind: 'error', text: strings.copyFailed })
        }
      },
      remove: (message) => setPanel({ kind: 'delete', message }),
      retry: (message) => conversation.retry(message.key),
      discard: (message) => conversation.discard(message.key),
      markUnread: (message) => void conversation.markUnread(message.id),
      jumpTo: (messageId) => void conversation.jumpTo(messageId),
      showHistory: (message) => setPanel({ kind: 'history', message }),
      showImage: (message) => setPanel({ kind: 'image', message }),
      openMenu: (message, anchor) => setPanel({ kind: 'menu', message, anchor }),
      openReactions: (message, anchor) => setPanel({ kind: 'reactions', message, anchor }),
    }),
    [conversation, canSend, editWindow, strings, toast, announce, callbacks],
  )

  /** `message` is the version that the user has edited, or has chosen to overwrite. */
  const saveEdit = async (message: TimelineMessage, content: string): Promise<void> => {
    if (content === message.content) return
    const latest = (): TimelineMessage =>
      conversation.getTimeline().messages.find(({ id }) => id === message.id) ?? message
    // Another window's edit may have arrived while this one was being written. The server would not
    // detect that conflict, because the client would send the newer revision.
    if (latest().content === message.content) {
      const { error } = await conversation.edit(message.id, content)
      if (error?.code !== 'stale_revision') return
    }
    setPanel({ kind: 'conflict', message: latest(), mine: content })
  }

  const close = (): void => setPanel(null)
  /** Focuses the row, because the toolbar that opened the panel may no longer exist. */
  const toRow = (): void => {
    if (panel)
      document
        .querySelector<HTMLElement>(`[data-key="${CSS.escape(panel.message.key)}"]`)
        ?.focus({ preventScroll: true })
  }
  const pick = (message: TimelineMessage, emoji: string): void => {
    close()
    actions.react(message, emoji)
  }
  const panelOf = (open: Panel): ReactNode => {
    const { message } = open
    switch (open.kind) {
      case 'menu':
        return (
          <MessageMenu
            message={message}
            anchor={open.anchor}
            actions={actions}
            onClose={close}
            onRestoreFocus={toRow}
            onMoreEmoji={() => setPanel({ kind: 'emoji', message, anchor: open.anchor })}
            onPin={() => void conversation.pinMessage(message.id, !message.is_pinned)}
            onHide={() => void conversation.remove(message.id, { forMe: true })}
            onReport={() => setPanel({ kind: 'report', message })}
          />
        )
      case 'reactions':
        return (
          <ReactionMenu
            anchor={open.anchor}
            message={message}
            onSelect={(emoji) => pick(message, emoji)}
            onMore={() => setPanel({ kind: 'emoji', message, anchor: open.anchor })}
            onClose={close}
            onRestoreFocus={toRow}
          />
        )
      case 'emoji':
        return (
          <EmojiPopup
            anchor={open.anchor}
            onSelect={(emoji) => pick(message, emoji)}
            onClose={close}
            onRestoreFocus={toRow}
          />
        )
      case 'delete':
        return (
          <ConfirmDialog
            title={strings.deleteQuestion}
            text={strings.deleteExplanation}
            confirm={strings.remove}
            onConfirm={() => void conversation.remove(message.id)}
            onClose={close}
          />
        )
      case 'report':
        return (
          <ReportDialog
            message={message}
            onClose={close}
            onReport={(reason) =>
              void conversation
                .report(message.id, reason)
                .then(({ error }) => toast(error ? { kind: 'error', text: error.message } : { text: strings.reported }))
            }
          />
        )
      case 'history':
        return <HistoryDialog message={message} load={() => conversation.history(message.id)} onClose={close} />
      case 'image':
        return <ImageDialog message={message} onClose={close} />
      case 'conflict':
        return (
          <ConflictDialog
            theirs={message.content}
            mine={open.mine}
            onKeepMine={() => void saveEdit(message, open.mine)}
            onClose={close}
          />
        )
    }
  }
  return { actions, panels: panel && panelOf(panel), saveEdit: (message, content) => void saveEdit(message, content) }
}

/** Whether `createdAt` is less than `seconds` ago. 0 means no limit. */
function isWithin(createdAt: string, seconds: number): boolean {
  return seconds === 0 || Date.now() - new Date(createdAt).getTime() < seconds * 1000
}
