'use client'

import type { PresenceStatus } from '@rapport-chat/client'
import type { ReactNode } from 'react'
import { useNavigationStrings } from '../context/base-context'
import type { NavigationStrings } from '../strings/navigation-en'

export function presenceText(status: PresenceStatus, strings: NavigationStrings): string {
  return strings[status]
}

/** Shows a presence status by shape as well as colour: a full dot, a half dot, a bar or a ring. */
export function PresenceDot({
  status,
  isLabelled = false,
}: {
  status: PresenceStatus
  isLabelled?: boolean
}): ReactNode {
  const strings = useNavigationStrings()
  const label = isLabelled ? { role: 'img', 'aria-label': presenceText(status, strings) } : { 'aria-hidden': true }
  return <span className="rpt-presence" data-slot="presence" data-status={status} {...label} />
}
