'use client'

import { useState, type ReactNode } from 'react'
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
  const [anchor, setAnchor] = useState<Element | null>(null)
  const chosen = presence?.manual_status ?? null
  const status = presence?.status ?? 'offline'
  const items: MenuItem[] = [
    {
      id: 'automatic',
      label: strings.statusAutomatic,
      icon: <PresenceDot status="online" />,
      isChecked: chosen === null,
      run: () => void client.setStatus('online'),
    },
    ...CHOICES.map((choice) => ({
      id: choice,
      label: strings[choice],
      icon: <PresenceDot status={choice} />,
      isChecked: chosen === choice,
      run: () => void client.setStatus(choice, { until: null }),
    })),
  ]
  return (
    <span className="rpt rpt-presence-menu" data-slot="presence-menu">
      <button
        type="button"
        className="rpt-self"
        aria-haspopup="menu"
        aria-expanded={anchor !== null}
        aria-label={`${strings.setStatus}: ${displayName(me, strings)}, ${strings[status]}`}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <Avatar person={me} size={32} presence={status} />
      </button>
      {anchor && <Menu anchor={anchor} label={strings.setStatus} items={items} onClose={() => setAnchor(null)} />}
    </span>
  )
}
