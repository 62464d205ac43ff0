'use client'

import type { ChatClient } from '@rapport-chat/client'
import { useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react'
import type { ChatStrings } from '../strings/en'
import { navigationEn } from '../strings/navigation-en'
import { useAlerts } from '../alerts/use-alerts'
import { useAnnouncer } from './announcer'
import { ChatContext, type BaseContextValue, type ChatComponents, type ChatTarget, type Upload } from './base-context'
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
  components?: ChatComponents
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
  /** The address of the application's copy of `@rapport-chat/react/emoji-data`. */
  emojiDataUrl?: string
  /** `false` disables the single-letter shortcuts. */
  letterShortcuts?: boolean
  children: ReactNode
}

/** A mounted component stays mounted, so there is nothing to subscribe to. */
const never = () => () => undefined

const NO_COMPONENTS: ChatComponents = {}

/** Starts the client, and provides it, the texts and the theme to all components below. */
export function ChatProvider(props: ChatProviderProps): ReactNode {
  const {
    client,
    strings = null,
    theme = 'auto',
    components = NO_COMPONENTS,
    letterShortcuts = true,
  } = props
  const {
    linkTo = null,
    onNavigate = null,
    onSignIn = null,
    renderText = null,
    upload = null,
    emojiDataUrl = null,
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
      linkTo,
      onNavigate,
      onSignIn,
      renderText,
      upload,
      emojiDataUrl,
      letterShortcuts,
      isMounted,
      announce,
      toast,
    }),
    [
      client,
      strings,
      components,
      linkTo,
      onNavigate,
      onSignIn,
      renderText,
      upload,
      emojiDataUrl,
      letterShortcuts,
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
