'use client'

import { CloudOff, LoaderCircle, LogIn, WifiOff } from 'lucide-react'
import { useEffect, useRef, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useConnection, useConnectionTrouble, type Trouble } from '../hooks/use-connection'

const ICONS = {
  connecting: LoaderCircle,
  reconnecting: LoaderCircle,
  polling: CloudOff,
  offline: WifiOff,
  signed_out: LogIn,
} as const

/** One line about a problem with the connection. Nothing is rendered if there is none. */
export function ConnectionBanner(): ReactNode {
  const { strings, onSignIn, announce } = useChatContext()
  const trouble = useConnectionTrouble()
  const { retry } = useConnection()
  const before = useRef<Trouble | null>(null)
  useEffect(() => {
    if (before.current && !trouble) announce(strings.backOnline)
    before.current = trouble
  }, [trouble, announce, strings])
  if (!trouble) return null
  const texts: Record<Trouble, string> = {
    connecting: strings.connecting,
    reconnecting: strings.reconnecting,
    polling: strings.pollingBanner,
    offline: strings.offlineBanner,
    signed_out: strings.signedOutBanner,
  }
  const Icon = ICONS[trouble]
  return (
    <div className="rpt-banner" data-slot="connection-banner" data-kind={trouble} role="status">
      <Icon aria-hidden size={16} className="rpt-banner-icon" />
      <span className="rpt-banner-text">{texts[trouble]}</span>
      {trouble === 'reconnecting' && (
        <button type="button" className="rpt-text-button" onClick={retry}>
          {strings.reconnectNow}
        </button>
      )}
      {trouble === 'signed_out' && onSignIn && (
        <button type="button" className="rpt-text-button" onClick={onSignIn}>
          {strings.signIn}
        </button>
      )}
    </div>
  )
}
