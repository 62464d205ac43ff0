'use client'

import { useState, type ReactNode } from 'react'
import { useChatClient, useNavigationStrings } from '../context/base-context'
import { useChatState } from '../context/use-store'
import { knownName } from '../format/names'
import { Avatar } from '../parts/avatar'
import type { MenuItem, MenuProps } from '../parts/menu'
import { part } from '../parts/part'
import { PresenceDot } from '../parts/presence-dot'

const CHOICES = ['busy', 'away', 'offline'] as const

const menu = part<MenuProps>(() => import('../parts/menu').then(({ Menu }) => Menu))

/** One's own picture and status. The status is chosen here for all devices. */
export function PresenceMenu(): ReactNode {
  const strings = useNavigationStrings()
  const client = useChatClient()
  const me = useChatState((state) => state.me)
  const presence = useChatState((state) => state.presence[client.userId])
  const [anchor, setAnchor] = useState<Element | null>(null)
  const chosen = presence?.manual_status ?? null
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
  // What the server has not said yet is left out.
  const facts = [knownName(me), presence && strings[presence.status]].filter(Boolean)
  return (
    <span className="rpt rpt-presence-menu" data-slot="presence-menu">
      <button
        type="button"
        className="rpt-self"
        aria-haspopup="menu"
        aria-expanded={anchor !== null}
        aria-label={[strings.setStatus, facts.join(', ')].filter(Boolean).join(': ')}
        onPointerEnter={menu.preload}
        onFocus={menu.preload}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <Avatar person={me} size={32} presence={presence?.status} />
      </button>
      {anchor && (
        <menu.View anchor={anchor} label={strings.setStatus} items={items} onClose={() => setAnchor(null)} />
      )}
    </span>
  )
}
