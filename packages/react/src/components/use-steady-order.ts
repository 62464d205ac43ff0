'use client'

import type { Conversation } from '@rapport-chat/client'
import { useEffect, useMemo, useReducer, useRef, type RefObject } from 'react'

/**
 * Keeps the order of the list while the pointer or the focus is in it, so that an item does not
 * move away under a click. The content of the items is always current.
 */
export function useSteadyOrder(conversations: readonly Conversation[], list: RefObject<HTMLElement | null>, active: string | null): readonly Conversation[] {
  const order = useRef<readonly string[]>([])
  const isHeld = useRef(false)
  const [, render] = useReducer((count: number) => count + 1, 0)

  useEffect(() => {
    const check = (): void => {
      const element = list.current
      const held = element !== null && (element.matches(':hover') || element.contains(document.activeElement))
      const wasHeld = isHeld.current
      isHeld.current = held
      if (wasHeld && !held) render()
    }
    const types = ['pointerover', 'pointerout', 'focusin', 'focusout'] as const
    // Focus has moved only after the event.
    const later = (): void => void setTimeout(check)
    for (const type of types) document.addEventListener(type, later, { passive: true })
    return () => {
      for (const type of types) document.removeEventListener(type, later)
    }
  }, [list])

  const shown = useMemo(() => {
    if (!isHeld.current || order.current.length === 0) return conversations
    const places = new Map(order.current.map((id, index) => [id, index]))
    // New conversations go to the top, where they will be anyway.
    return [...conversations].sort((a, b) => (places.get(a.id) ?? -1) - (places.get(b.id) ?? -1))
    // `active` is a reason to look again: opening another conversation is a deliberate act.
  }, [conversations, active, isHeld.current])
  order.current = shown.map(({ id }) => id)
  return shown
}
