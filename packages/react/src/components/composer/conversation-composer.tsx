'use client'

import type { ConversationClient, TimelineMessage } from '@rapport-chat/client'
import { useState, type ReactNode, type Ref } from 'react'
import { useChatClient, useChatContext } from '../../context/chat-context'
import { useChatState } from '../../context/use-store'
import { displayName, firstName } from '../../format/names'
import { useDraft } from '../../hooks/use-draft'
import type { MessageActions } from '../../list/message-actions'
import type { ChatStrings } from '../../strings/en'
import { MessageInput, type ComposerStrip, type MessageInputHandle } from '../message-input'
import { previewText } from '../message/quote'

/** Whether the composer writes a reply, an edit, or (null) a new message. */
export type ComposerMode = { readonly kind: 'reply' | 'edit'; readonly message: TimelineMessage } | null

interface ConversationComposerProps {
  conversation: ConversationClient
  /** The conversation's name. */
  name: string
  mode: ComposerMode
  onMode: (mode: ComposerMode) => void
  actions: MessageActions
  onSaveEdit: (message: TimelineMessage, content: string) => void
  onFileUpload: ((file: File) => void) | undefined
  handle: Ref<MessageInputHandle>
}

/**
 * The composer of a conversation. It holds the text itself, so that a key press renders the field
 * and not the messages above it.
 */
export function ConversationComposer(props: ConversationComposerProps): ReactNode {
  const { conversation, name, mode, onMode, actions, onSaveEdit, onFileUpload, handle } = props
  const { strings, components } = useChatContext()
  const client = useChatClient()
  const maxLength = useChatState((state) => state.config?.max_message_length)
  const { draft, setDraft } = useDraft(conversation.id)
  const [edit, setEdit] = useState<{ message: TimelineMessage; text: string } | null>(null)
  const edited = mode?.kind === 'edit' ? mode.message : null

  const leaveMode = (): void => {
    if (edit) setEdit(null)
    if (mode) onMode(null)
  }
  const send = (content: string): void => {
    leaveMode()
    if (edited) return onSaveEdit(edited, content)
    conversation.send(content, mode ? { replyToId: mode.message.id } : {})
    setDraft('')
  }
  const editLast = (): void => {
    const last = conversation
      .getTimeline()
      .messages.findLast((message) => actions.canEdit(message) && Number.isFinite(message.seq))
    if (last) actions.edit(last)
  }
  const Input = components.MessageInput ?? MessageInput
  return (
    <Input
      handle={handle}
      label={strings.composerLabel(firstName(name))}
      value={edited ? (edit?.message === edited ? edit.text : edited.content) : draft}
      onChange={edited ? (text) => setEdit({ message: edited, text }) : setDraft}
      onStopTyping={() => conversation.stopTyping()}
      onSendMessage={send}
      strip={stripOf(mode, strings, client.userId)}
      onCancelStrip={leaveMode}
      onEditLast={editLast}
      autoFocus
      {...(maxLength && { maxLength })}
      {...(onFileUpload && { onFileUpload })}
    />
  )
}

function stripOf(mode: ComposerMode, strings: ChatStrings, me: string): ComposerStrip | null {
  if (!mode) return null
  const { message } = mode
  const title =
    mode.kind === 'edit'
      ? strings.editingMessage
      : strings.replyingTo(message.sender_id === me ? strings.you : displayName(message.sender, strings))
  return { kind: mode.kind, title, text: previewText(message, strings) }
}
