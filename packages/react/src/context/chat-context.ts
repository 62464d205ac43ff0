'use client'

import type { ChatClient } from '@rapport-chat/client'
import { createContext, useContext, type ComponentType, type ReactNode } from 'react'
import type { AvatarProps } from '../parts/avatar'
import type { ConversationItemProps } from '../components/conversation-item'
import type { EmptyStateProps } from '../components/empty-state'
import type { MessageBubbleProps } from '../components/message-bubble'
import type { MessageInputProps } from '../components/message-input'
import type { TypingIndicatorProps } from '../components/typing-indicator'
import { en, type ChatStrings } from '../strings/en'

/** Parts that a host can replace. */
export interface ChatComponents {
  Avatar?: ComponentType<AvatarProps>
  ConversationItem?: ComponentType<ConversationItemProps>
  EmptyState?: ComponentType<EmptyStateProps>
  MessageBubble?: ComponentType<MessageBubbleProps>
  MessageInput?: ComponentType<MessageInputProps>
  TypingIndicator?: ComponentType<TypingIndicatorProps>
}

/** Where a link of the chat leads. */
export type ChatTarget =
  | { readonly to: 'list' }
  | { readonly to: 'conversation'; readonly conversationId: string; readonly messageId?: string }

export interface ToastMessage {
  readonly text: string
  readonly kind?: 'info' | 'error'
  readonly action?: { readonly label: string; readonly run: () => void }
}

export interface UploadedFile {
  readonly url: string
  readonly name: string
  readonly size: number
  readonly type: string
}

/** Stores a file and returns its address. `onProgress` takes a share from 0 to 1. */
export type Upload = (
  file: File,
  options: { signal: AbortSignal; onProgress: (share: number) => void },
) => Promise<UploadedFile>

export interface ChatContextValue {
  readonly client: ChatClient | null
  readonly strings: ChatStrings
  readonly components: ChatComponents
  /** The address of a target. Without it, items are buttons instead of links. */
  readonly linkTo: ((target: ChatTarget) => string) | null
  readonly onNavigate: ((target: ChatTarget) => void) | null
  readonly onSignIn: (() => void) | null
  readonly renderText: ((text: string) => ReactNode) | null
  readonly upload: Upload | null
  /** The address below which `<locale>/data.json` of the emoji picker is. */
  readonly emojiDataUrl: string | null
  /** Single letters act on the focused message (WCAG 2.1.4 requires a switch). */
  readonly letterShortcuts: boolean
  /** False on the server and while hydrating: nothing that depends on time or zone is rendered. */
  readonly isMounted: boolean
  /** Says something to screen readers, politely. */
  readonly announce: (text: string) => void
  readonly toast: (message: ToastMessage) => void
}

const nothing = (): void => undefined

/** Without a provider, components that get everything by props still work, in English. */
export const defaultContext: ChatContextValue = {
  client: null,
  strings: en,
  components: {},
  linkTo: null,
  onNavigate: null,
  onSignIn: null,
  renderText: null,
  upload: null,
  emojiDataUrl: null,
  letterShortcuts: true,
  isMounted: true,
  announce: nothing,
  toast: nothing,
}

export const ChatContext = createContext<ChatContextValue>(defaultContext)

export function useChatContext(): ChatContextValue {
  return useContext(ChatContext)
}

export function useStrings(): ChatStrings {
  return useContext(ChatContext).strings
}

/** The client of the provider. Hooks that need one fail early and say why. */
export function useChatClient(): ChatClient {
  const { client } = useContext(ChatContext)
  if (!client) throw new Error('This hook needs a <ChatProvider> above it.')
  return client
}
