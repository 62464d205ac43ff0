'use client'

// The context that the provider supplies. This file loads only the texts of the navigation. The
// components of a conversation use `chat-context.ts`, which adds all other English texts.

import type { ChatClient } from '@rapport-chat/client'
import { createContext, useContext, type ComponentType, type HTMLAttributes, type ReactNode } from 'react'
import type { AvatarProps } from '../parts/avatar'
import type { ConversationItemProps } from '../components/conversation-item'
import type { EmptyStateProps } from '../components/empty-state'
import type { MessageBubbleProps } from '../components/message-bubble'
import type { MessageInputProps } from '../components/message-input'
import type { AttachmentProps } from '../components/message/attachment'
import type { FailedRowProps } from '../components/message/failed-row'
import type { MessageMetaProps } from '../components/message/message-meta'
import type { QuoteProps } from '../components/message/quote'
import type { ReactionsProps } from '../components/message/reactions'
import type { TypingIndicatorProps } from '../components/typing-indicator'
import type { ChatStrings } from '../strings/en'
import { navigationEn, type NavigationStrings } from '../strings/navigation-en'

/** Components that the application can replace. */
export interface ChatComponents {
  Avatar?: ComponentType<AvatarProps>
  ConversationItem?: ComponentType<ConversationItemProps>
  EmptyState?: ComponentType<EmptyStateProps>
  MessageBubble?: ComponentType<MessageBubbleProps>
  MessageInput?: ComponentType<MessageInputProps>
  TypingIndicator?: ComponentType<TypingIndicatorProps>
}

/** Pieces of a message that the application can replace. */
export interface ChatSlots {
  Attachment?: ComponentType<AttachmentProps>
  FailedRow?: ComponentType<FailedRowProps>
  MessageMeta?: ComponentType<MessageMetaProps>
  Quote?: ComponentType<QuoteProps>
  Reactions?: ComponentType<ReactionsProps>
}

/** Elements to which the application can add attributes, by their `data-slot`. */
export type SlotName =
  | 'message'
  | 'bubble'
  | 'quote'
  | 'image'
  | 'file'
  | 'meta'
  | 'reactions'
  | 'failed'
  | 'conversation-header'
  | 'composer'

export type SlotProps = Partial<Record<SlotName, HTMLAttributes<HTMLElement> & Record<`data-${string}`, unknown>>>

/** The target of a link in the chat. */
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

/** Stores a file and returns its address. `onProgress` takes a fraction from 0 to 1. */
export type Upload = (
  file: File,
  options: { signal: AbortSignal; onProgress: (share: number) => void },
) => Promise<UploadedFile>

/** The limits that are checked before a file is uploaded. */
export interface UploadLimits {
  readonly maxBytes?: number
  /** The accepted types, in the format of a file input's `accept`: `image/*,.pdf`. */
  readonly accept?: string
}

export interface BaseContextValue {
  readonly client: ChatClient | null
  /** Null means English. */
  readonly strings: ChatStrings | null
  readonly components: ChatComponents
  readonly slots: ChatSlots
  readonly slotProps: SlotProps
  /** The address of a target. Without it, items are buttons instead of links. */
  readonly linkTo: ((target: ChatTarget) => string) | null
  readonly onNavigate: ((target: ChatTarget) => void) | null
  readonly onSignIn: (() => void) | null
  readonly renderText: ((text: string) => ReactNode) | null
  readonly upload: Upload | null
  readonly uploadLimits: UploadLimits
  /** The base address of the emoji picker's data, which is at `<locale>/data.json` below it. */
  readonly emojiDataUrl: string | null
  /** Whether single letters act on the focused message. WCAG 2.1.4 requires a way to disable it. */
  readonly letterShortcuts: boolean
  /** The reaction that a double click or a double tap adds. Null: none. */
  readonly doubleClickReaction: string | null
  /**
   * False on the server and while hydrating. Times are not rendered then, because the server does
   * not know the user's time zone.
   */
  readonly isMounted: boolean
  /** Announces a text to screen readers, in a polite live region. */
  readonly announce: (text: string) => void
  readonly toast: (message: ToastMessage) => void
}

const nothing = (): void => undefined

/** The context without a provider. Components that receive all data as props work with it. */
const defaultContext: BaseContextValue = {
  client: null,
  strings: null,
  components: {},
  slots: {},
  slotProps: {},
  linkTo: null,
  onNavigate: null,
  onSignIn: null,
  renderText: null,
  upload: null,
  uploadLimits: {},
  emojiDataUrl: null,
  letterShortcuts: true,
  doubleClickReaction: null,
  isMounted: true,
  announce: nothing,
  toast: nothing,
}

export const ChatContext = createContext<BaseContextValue>(defaultContext)

/** The texts that the provider and `./navigation` use. */
export function useNavigationStrings(): NavigationStrings {
  return useContext(ChatContext).strings ?? navigationEn
}

/** Returns the provider's client. Without a provider, it throws an error that names the cause. */
export function useChatClient(): ChatClient {
  const { client } = useContext(ChatContext)
  if (!client) throw new Error('This hook needs a <ChatProvider> above it.')
  return client
}

/** Returns the class of an element, and the attributes that the application adds to it. */
export function useSlot(name: SlotName, className: string): HTMLAttributes<HTMLElement> {
  const added = useContext(ChatContext).slotProps[name]
  return added ? { ...added, className: [className, added.className].filter(Boolean).join(' ') } : { className }
}
