'use client'

import { useRef, useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { useChatState } from '../context/use-store'
import { displayName } from '../format/names'
import { Avatar } from '../parts/avatar'
import { Menu, type MenuItem } from '../parts/menu'
import { PresenceDot } from '../parts/presence-dot'

const CHOICES = ['busy', 'away', 'offline'] as const

/** One's own picture and status. The status is chosen here for all devices. */
export function PresenceMenu(): ReactNode {
  const { strings } = useChatContext()
  const client = useChatClient()
  const me = useChatState((state) => state.me)
  const presence = useChatState((state) => state.presence[client.userId])
  const [isOpen, setOpen] = useState(false)
  const button = useRef<HTMLButtonElement>(null)
  const chosen = presence?.manual_status ?? null
  const status = presence?.status ?? 'offline'
  const items: MenuItem[] = [
    { id: 'automatic', label: strings.statusAutomatic, icon: <PresenceDot status="online" />, isChecked: chosen === null, run: () => void client.setStatus('online') },
    ...CHOICES.map((choice) => ({ id: choice, label: strings[choice], icon: <PresenceDot status={choice} />, isChecked: chosen === choice, run: () => void client.setStatus(choice, { until: null }) })),
  ]
  return (
    <span className="rpt rpt-presence-menu" data-slot="presence-menu">
      <button ref={button} type="button" className="rpt-self" aria-haspopup="menu" aria-expanded={isOpen} aria-label={`${strings.setStatus}: ${displayName(me, strings)}, ${strings[status]}`} onClick={() => setOpen(!isOpen)}>
        <Avatar person={me} size={32} presence={status} />
      </button>
      {isOpen && button.current && <Menu anchor={button.current} label={strings.setStatus} items={items} onClose={() => setOpen(false)} />}
    </span>
  )
}
