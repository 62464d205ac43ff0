'use client'

import { useState, type ReactNode } from 'react'
import { useChatClient, useNavigationStrings } from '../context/base-context'
import { useChatState } from '../context/use-store'
import { knownName } from '../format/names'
import { ownStatus } from '../format/own-status'
import { Avatar } from '../parts/avatar'
import { lazyComponent } from '../parts/lazy-component'

const choices = lazyComponent(() => import('./presence-choices').then(({ PresenceChoices }) => PresenceChoices))

/** A button with the user's own picture and status. It opens the menu for choosing a status. */
export function PresenceMenu(): ReactNode {
  const strings = useNavigationStrings()
  const client = useChatClient()
  const me = useChatState((state) => state.me)
  const status = useChatState((state) => ownStatus(state, client.userId))
  const [anchor, setAnchor] = useState<Element | null>(null)
  // The name and the status are omitted until the server has sent them.
  const facts = [knownName(me), status && strings[status]].filter(Boolean)
  return (
    <span className="rpt rpt-presence-menu" data-slot="presence-menu">
      <button
        type="button"
        className="rpt-self"
        aria-haspopup="menu"
        aria-expanded={anchor !== null}
        aria-label={[strings.setStatus, facts.join(', ')].filter(Boolean).join(': ')}
        onPointerEnter={choices.preload}
        onFocus={choices.preload}
        onClick={(event) => setAnchor(anchor ? null : event.currentTarget)}
      >
        <Avatar person={me} size={32} presence={status} />
      </button>
      {anchor && <choices.View anchor={anchor} onClose={() => setAnchor(null)} />}
    </span>
  )
}
