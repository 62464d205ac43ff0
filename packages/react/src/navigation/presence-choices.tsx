'use client'

import type { ReactNode } from 'react'
import { useChatClient, useNavigationStrings } from '../context/base-context'
import { useChatState } from '../context/use-store'
import { Menu, type MenuItem } from '../parts/menu'
import { PresenceDot } from '../parts/presence-dot'

export interface PresenceChoicesProps {
  anchor: Element
  onClose: () => void
}

const CHOICES = ['busy', 'away', 'offline'] as const

/** A menu to choose the status for all devices. Its code is loaded when it is first opened. */
export function PresenceChoices({ anchor, onClose }: PresenceChoicesProps): ReactNode {
  const strings = useNavigationStrings()
  const client = useChatClient()
  const chosen = useChatState((state) => state.presence[client.userId]?.manual_status ?? null)
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
  return <Menu anchor={anchor} label={strings.setStatus} items={items} onClose={onClose} />
}
