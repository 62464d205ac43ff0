'use client'

import type { Conversation } from '@rapport-chat/client'
import { useEffect, useMemo, useState, type RefObject } from 'react'
import { useLatest } from '../context/use-latest'

/**
 * Preserves the order of the list while the pointer or the focus is in it, so that a click does not
 * hit a different item. The content of the items is always current.
 */
export function useSteadyOrder(
  conversations: readonly Conversation[],
  list: RefObject<HTMLElement | null>,
): readonly Conversation[] {
  /** The order when the pointer or the focus entered the list; null while neither is in it. */
  const [held, setHeld] = useState<readonly string[] | null>(null)
  const latest = useLatest(conversations)

  useEffect(() => {
    const check = (): void => {
      const element = list.current
      const isHeld = element !== null && (element.matches(':hover') || element.contains(document.activeElement))
      setHeld((old) => (isHeld ? (old ?? latest.current.map(({ id }) => id)) : null))
    }
    // Checked later, because the focus moves only after the event.
    const later = (): void => void setTimeout(check)
    const types = ['pointerover', 'pointerout', 'focusin', 'focusout'] as const
    for (const type of types) document.addEventListener(type, later, { passive: true })
    return () => {
      for (const type of types) document.removeEventListener(type, later)
    }
  }, [list, latest])

  return useMemo(() => {
    if (!held) return conversations
    const places = new Map(held.map((id, index) => [id, index]))
    // A new conversation goes to the top, as it does in the current order.
    return [...conversations].sort((a, b) => (places.get(a.id) ?? -1) - (places.get(b.id) ?? -1))
  }, [conversations, held])
}
