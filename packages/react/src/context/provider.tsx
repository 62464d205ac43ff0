'use client'

import type { ChatClient } from '@rapport-chat/client'
import { useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react'
import type { ChatStrings } from '../strings/en'
import { navigationEn } from '../strings/navigation-en'
import { useAlerts } from '../alerts/use-alerts'
import { useAnnouncer } from './announcer'
import {
  ChatContext,
  type BaseContextValue,
  type ChatComponents,
  type ChatSlots,
  type ChatTarget,
  type SlotProps,
  type Upload,
  type UploadLimits,
} from './base-context'
import { useChatEvents } from './use-chat-events'
import { useToasts } from './toasts'

export interface ChatProviderProps {
  /** The client from `createChatClient`. Create it once per user, outside of rendering. */
  client: ChatClient
  /** The texts. English by default; `@rapport-chat/react/strings/de` and `/ar` are included. */
  strings?: ChatStrings
  /** The default, `auto`, is dark inside an element with class `dark`, or if the system is dark. */
  theme?: 'light' | 'dark' | 'auto'
  /** The text direction. By default, that of `strings`. */
  dir?: 'ltr' | 'rtl'
  /** Replacements for components. Create the object outside of rendering. */
  components?: ChatComponents
  /** Replacements for pieces of a message. Create the object outside of rendering. */
  slots?: ChatSlots
  /** Attributes, such as classes, to add to elements. Create the object outside of rendering. */
  slotProps?: SlotProps
  /** Returns the address of a conversation or of the list. Items are then rendered as links. */
  linkTo?: (target: ChatTarget) => string
  /**
   * Called when the user opens a conversation or returns to the list, for a client-side router. A
   * click on a notification also calls it.
   */
  onNavigate?: (target: ChatTarget) => void
  /** Called by "Sign in" when the session has ended. */
  onSignIn?: () => void
  /** Replaces the display of message text. */
  renderText?: (text: string) => ReactNode
  /** Stores attachments. If omitted, there is no button for files. */
  upload?: Upload
  /** Files outside of these limits are refused. Create the object outside of rendering. */
  uploadLimits?: UploadLimits
  /** The address of the application's copy of `@rapport-chat/react/emoji-data`. */
  emojiDataUrl?: string
  /** `false` disables the single-letter shortcuts. */
  letterShortcuts?: boolean
  /** The reaction that a double click or a double tap adds, such as "❤️". */
  doubleClickReaction?: string
  children: ReactNode
}

/** A mounted component stays mounted, so there is nothing to subscribe to. */
const never = () => () => undefined

/** The same object for every render. */
const NOTHING = {}

/** Starts the client, and provides it, the texts and the theme to all components below. */
export function ChatProvider(props: ChatProviderProps): ReactNode {
  const {
    client,
    strings = null,
    theme = 'auto',
    components = NOTHING,
    slots = NOTHING,
    slotProps = NOTHING,
    uploadLimits = NOTHING,
    letterShortcuts = true,
  } = props
  const {
    linkTo = null,
    onNavigate = null,
    onSignIn = null,
    renderText = null,
    upload = null,
    emojiDataUrl = null,
    doubleClickReaction = null,
  } = props
  const texts = strings ?? navigationEn
  const { dir = texts.dir } = props
  const { announce, outlet: announcer } = useAnnouncer()
  const { toast, outlet: toasts } = useToasts(texts)
  const isMounted = useSyncExternalStore(
    never,
    () => true,
    () => false,
  )

  // The client counts starts: StrictMode runs this effect twice, but only one socket is opened.
  useEffect(() => client.start(), [client])
  useChatEvents(client, texts, announce, toast)
  useAlerts(client, texts, onNavigate)

  const value = useMemo<BaseContextValue>(
    () => ({
      client,
      strings,
      components,
      slots,
      slotProps,
      linkTo,
      onNavigate,
      onSignIn,
      renderText,
      upload,
      uploadLimits,
      emojiDataUrl,
      letterShortcuts,
      doubleClickReaction,
      isMounted,
      announce,
      toast,
    }),
    [
      client,
      strings,
      components,
      slots,
      slotProps,
      linkTo,
      onNavigate,
      onSignIn,
      renderText,
      upload,
      uploadLimits,
      emojiDataUrl,
      letterShortcuts,
      doubleClickReaction,
      isMounted,
      announce,
      toast,
    ],
  )
  return (
    <ChatContext.Provider value={value}>
      <div className="rpt rpt-provider" data-slot="chat" data-theme={theme} dir={dir} lang={texts.locale}>
        {props.children}
        {toasts}
        {announcer}
      </div>
    </ChatContext.Provider>
  )
}
