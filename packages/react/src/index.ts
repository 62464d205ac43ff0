'use client'

// The provider and its context
export { ChatProvider, type ChatProviderProps } from './context/provider'
export {
  useChatClient,
  type ChatComponents,
  type ChatSlots,
  type ChatTarget,
  type SlotName,
  type SlotProps,
  type ToastMessage,
  type Upload,
  type UploadedFile,
  type UploadLimits,
} from './context/chat-context'
export { useChatState } from './context/use-store'

// Components
export { Messenger, type MessengerProps } from './components/messenger'
export { UserChatInterface, type UserChatInterfaceProps } from './components/user-chat-interface'
export { MessageBubble, type MessageBubbleProps } from './components/message-bubble'
export { TypingIndicator, type TypingIndicatorProps } from './components/typing-indicator'
export { ConversationsList, type ConversationsListProps } from './components/conversations-list'
export { ConversationItem, type ConversationItemProps } from './components/conversation-item'
export { NewChatDialog, type NewChatDialogProps } from './components/new-chat-dialog'
export { UserSearchInput, type UserSearchInputProps } from './components/user-search-input'
export {
  MessageInput,
  type ComposerStrip,
  type MessageInputHandle,
  type MessageInputProps,
} from './components/message-input'
export { EmptyState, type EmptyStateProps, type EmptyVariant } from './components/empty-state'
export { ConnectionBanner } from './components/connection-banner'
export { MessageSearch, type MessageSearchProps } from './components/message-search'
export type { AttachmentProps } from './components/message/attachment'
export type { FailedRowProps } from './components/message/failed-row'
export type { MessageMetaProps } from './components/message/message-meta'
export type { QuoteProps } from './components/message/quote'
export type { ReactionsProps } from './components/message/reactions'
export { MessageList, type MessageListHandle, type MessageListProps } from './list/message-list'
export type { MessageActions } from './list/message-actions'
export { Avatar, type AvatarPerson, type AvatarProps } from './parts/avatar'
export { PresenceDot } from './parts/presence-dot'
export { UnreadBadge, type UnreadBadgeProps } from './parts/unread-badge'
export { PresenceMenu } from './navigation/presence-menu'
export { QuickAccess, type QuickAccessProps } from './navigation/quick-access'
export { NotificationSettings } from './navigation/notification-settings'
export { MessagesBadge, useMessagesLabel, useUnreadTitle } from './navigation/messages-badge'

// Hooks
export { useConnection, type ConnectionState } from './hooks/use-connection'
export {
  useConversation,
  useConversations,
  type ConversationFilter,
  type Conversations,
} from './hooks/use-conversations'
export { useDraft, type Draft } from './hooks/use-draft'
export { useNotifications, type Notifications } from './hooks/use-notifications'
export { usePreferences, type PreferencesState } from './hooks/use-preferences'
export { useRealtimeChat, type RealtimeChat } from './hooks/use-realtime-chat'
export { useMessageSearch, useUserSearch, type MessageSearchState, type UserSearch } from './hooks/use-search'
export { useTypingIndicator, type TypingIndicatorState } from './hooks/use-typing-indicator'
export { useUnreadCount } from './hooks/use-unread-count'
export { useUserPresence, type UserPresence } from './hooks/use-user-presence'

export {
  supabaseStorageUpload,
  type SupabaseStorage,
  type SupabaseStorageOptions,
} from './uploads/supabase-storage'

export { accentFrom, type Accent } from './format/accent'
export type { ChatStrings } from './strings/en'
