import type { KeyboardEvent } from 'react'
import type { TimelineMessage } from '@rapport-chat/client'
import { isLive, type MessageActions } from './message-actions'

interface ListKeys {
  rows: () => HTMLElement[]
  messageOf: (key: string) => TimelineMessage | undefined
  focusRow: (row: HTMLElement) => void
  toNewest: () => void
  toComposer: () => void
  actions: MessageActions
  letters: boolean
}

/** PageUp and PageDown move by this fraction of the viewport, so that some context stays. */
const PAGE_SHARE = 0.9

/** Handles the keys of the message list, while a row or an element inside a row has the focus. */
export function onListKey(event: KeyboardEvent<HTMLElement>, list: ListKeys): void {
  const target = event.target as HTMLElement
  const row = target.closest<HTMLElement>('[data-key]')
  if (!row) return
  const isHandled = target === row ? onRow(event, row, list) : onControl(event, row)
  if (isHandled) event.preventDefault()
}

/**
 * Returns the controls of a row in the order in which the arrow keys visit them: the toolbar, the
 * buttons of a failed message, and all others, such as a quote, a link, "edited" or reactions.
 */
function controlsOf(row: HTMLElement): HTMLElement[] {
  const all = [...row.querySelectorAll<HTMLElement>('button:not(:disabled), a[href]')]
  const rank = (control: HTMLElement): number =>
    control.closest('[role="toolbar"]') ? 0 : control.closest('[data-slot="failed"]') ? 1 : 2
  return all.sort((a, b) => rank(a) - rank(b))
}

function isForward(event: KeyboardEvent<HTMLElement>): boolean {
  const isRtl = getComputedStyle(event.currentTarget).direction === 'rtl'
  return event.key === (isRtl ? 'ArrowLeft' : 'ArrowRight')
}

/**
 * The left and right arrows move between the controls of a row. Escape, and the backward arrow at
 * the first control, return to the row.
 */
function onControl(event: KeyboardEvent<HTMLElement>, row: HTMLElement): boolean {
  const controls = controlsOf(row)
  const at = controls.indexOf(event.target as HTMLElement)
  const isArrow = event.key === 'ArrowRight' || event.key === 'ArrowLeft'
  if (event.key === 'Escape' || (isArrow && !isForward(event) && at <= 0)) {
    row.focus({ preventScroll: true })
    return true
  }
  if (isArrow) controls[Math.min(at + (isForward(event) ? 1 : -1), controls.length - 1)]?.focus()
  return isArrow
}

function onRow(event: KeyboardEvent<HTMLElement>, row: HTMLElement, list: ListKeys): boolean {
  const rows = list.rows()
  const at = rows.indexOf(row)
  const go = (to: HTMLElement | undefined): boolean => {
    if (to) list.focusRow(to)
    return true
  }
  switch (event.key) {
    case 'ArrowUp':
      return !event.altKey && go(rows[at - 1])
    case 'ArrowDown':
      return !event.altKey && go(rows[at + 1])
    case 'Home':
      return go(rows[0])
    case 'End':
      list.toNewest()
      return true
    case 'PageUp':
    case 'PageDown':
      return go(
        pageAway(rows, at, event.key === 'PageUp' ? -1 : 1, event.currentTarget.parentElement?.clientHeight ?? 0),
      )
    case 'Escape':
      list.toComposer()
      return true
    case 'Enter':
    case 'ArrowRight':
    case 'ArrowLeft': {
      if (event.key !== 'Enter' && !isForward(event)) return false
      controlsOf(row)[0]?.focus()
      return true
    }
    default:
      return list.letters && onLetter(event, row, list)
  }
}

function pageAway(rows: HTMLElement[], at: number, step: 1 | -1, viewport: number): HTMLElement | undefined {
  const from = rows[at]?.getBoundingClientRect().top ?? 0
  let index = at
  while (
    rows[index + step] &&
    Math.abs((rows[index + step]?.getBoundingClientRect().top ?? 0) - from) <= viewport * PAGE_SHARE
  )
    index += step
  // Moves by at least one row, even if that row is taller than the viewport.
  return rows[index === at ? at + step : index]
}

function onLetter(event: KeyboardEvent<HTMLElement>, row: HTMLElement, { messageOf, actions }: ListKeys): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false
  const message = messageOf(row.dataset['key'] ?? '')
  if (!message || !isLive(message)) return false
  switch (event.key.toLowerCase()) {
    case 'r':
      if (actions.canReply) actions.reply(message)
      return true
    case 'e':
      if (actions.canEdit(message)) actions.edit(message)
      return true
    case 'delete':
      actions.remove(message)
      return true
    case 'c':
      actions.copy(message)
      return true
    case '+':
      actions.openReactions(message, row)
      return true
    case 'u':
      actions.markUnread(message)
      return true
    default:
      return false
  }
}
