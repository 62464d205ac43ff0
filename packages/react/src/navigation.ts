'use client'

export { ChatProvider, type ChatProviderProps } from './context/provider'
export { MessagesBadge, useMessagesLabel, useUnreadTitle } from './navigation/messages-badge'
export { PresenceMenu } from './navigation/presence-menu'
export { QuickAccess, type QuickAccessProps } from './navigation/quick-access'
export { UnreadBadge, type UnreadBadgeProps } from './parts/unread-badge'
