'use client'

import type { Conversation } from '@rapport-chat/client'
import { useEffect, type RefObject } from 'react'
import { useChatClient } from '../context/chat-context'
import { useLatest } from '../context/use-latest'
import { isListed } from '../format/listed'
import { isUnread } from '../format/unread'

interface Shortcuts {
  current: string | null
  open: (conversationId: string) => void
  find: () => void
  search: () => void
  help: () => void
}

/** The regions that F6 visits, in order. For each, the first selector with a visible match wins. */
const REGIONS = [
  ['[data-slot="conversations"] [tabindex="0"]', '[data-slot="search"]'],
  ['[data-slot="message-row"][tabindex="0"]', '[data-slot="scroller"]'],
  ['[data-slot="field"]'],
] as const

/** Adds shortcuts that work if the focus is anywhere in the chat, or on no element. */
export function useShortcuts(root: RefObject<HTMLElement | null>, shortcuts: Shortcuts): void {
  const client = useChatClient()
  const latest = useLatest(shortcuts)

  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const element = root.current
      if (!element || event.defaultPrevented) return
      const target = event.target as Element
      if (target !== document.body && !element.contains(target)) return
      // A dialog covers the targets of the shortcuts.
      if (target.closest('dialog')) return
      const mod = event.ctrlKey || event.metaKey
      if (mod && !event.altKey && !event.shiftKey && event.key.toLowerCase() === 'k') latest.current.find()
      else if (mod && event.key === '/') latest.current.help()
      else if (mod && event.shiftKey && event.key.toLowerCase() === 'f') latest.current.search()
      else if (event.altKey && !mod && (event.key === 'ArrowUp' || event.key === 'ArrowDown'))
        step(event.key === 'ArrowUp' ? -1 : 1, event.shiftKey)
      else if (event.key === 'F6') turn(element, event.shiftKey ? -1 : 1)
      else return
      event.preventDefault()
    }
    const step = (by: 1 | -1, onlyUnread: boolean): void => {
      const { current, open } = latest.current
      const { conversations } = client.getState()
      const list = asShown(
        root.current,
        conversations.filter((one) => !one.is_archived && isListed(one, client.userId)),
      )
      const known = list.findIndex(({ id }) => id === current)
      const from = known >= 0 ? known : by === 1 ? -1 : list.length
      // The search for an unread conversation continues at the other end of the list. A
      // conversation can become unread before its new message moves it to the top, so it may be on
      // either side of the current one.
      const steps = onlyUnread ? list.length : 1
      for (let step = 1; step <= steps; step++) {
        const at = from + step * by
        const next = list[onlyUnread ? (at + list.length) % list.length : at]
        if (next && next.id !== current && (!onlyUnread || isUnread(next))) return open(next.id)
      }
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  }, [client, root, latest])
}

/** Returns the conversations in the order of the displayed list (see `useSteadyOrder`). */
function asShown(root: HTMLElement | null, conversations: readonly Conversation[]): readonly Conversation[] {
  const links = root?.querySelectorAll<HTMLElement>('[data-slot="conversations"] [data-conversation]') ?? []
  const places = new Map([...links].map((link, index) => [link.dataset['conversation'], index]))
  const placeOf = ({ id }: Conversation): number => places.get(id) ?? places.size
  return [...conversations].sort((a, b) => placeOf(a) - placeOf(b))
}

/** Moves the focus to the next or previous region that is visible. */
function turn(root: HTMLElement, by: 1 | -1): void {
  const shown = (selector: string): HTMLElement | undefined =>
    [...root.querySelectorAll<HTMLElement>(selector)].find((one) => one.getClientRects().length > 0)
  const stops = REGIONS.map((selectors) => selectors.map(shown).find((one) => one !== undefined)).filter(
    (one) => one !== undefined,
  )
  const panes = stops.map((stop) =>
    stop.closest('[data-slot="conversations-list"], [data-slot="message-list"], [data-slot="composer"]'),
  )
  const at = panes.findIndex((pane) => pane?.contains(document.activeElement))
  stops[(at + by + stops.length) % stops.length]?.focus()
}
