'use client'

import { useEffect, useRef, type KeyboardEvent, type ReactNode } from 'react'
import { Popup, type PopupAnchor } from './popup'

export interface MenuItem {
  readonly id: string
  readonly label: string
  readonly icon?: ReactNode
  readonly isDanger?: boolean
  /** Only for choices: whether the item is the current choice. */
  readonly isChecked?: boolean
  readonly shortcut?: string
  readonly run: () => void
}

export interface MenuProps {
  anchor: PopupAnchor
  label: string
  items: readonly (MenuItem | 'separator')[]
  /** Shown above the items, for example a row of reactions. */
  header?: ReactNode
  onClose: () => void
  onRestoreFocus?: () => void
}

/** After this pause, a typed letter starts a new search for an item. */
const TYPE_AHEAD_MS = 600

/** The menu of a menu button. On a phone, it is a sheet at the bottom of the screen. */
export function Menu({ anchor, label, items, header, onClose, onRestoreFocus }: MenuProps): ReactNode {
  const list = useRef<HTMLDivElement>(null)
  const typed = useRef({ text: '', at: 0 })
  const entries = (): HTMLElement[] => [...(list.current?.querySelectorAll<HTMLElement>('[data-menu-item]') ?? [])]

  useEffect(() => {
    list.current?.querySelector<HTMLElement>('[data-menu-item]')?.focus({ preventScroll: true })
  }, [])

  const onKeyDown = (event: KeyboardEvent<HTMLDivElement>): void => {
    const all = entries()
    const at = all.indexOf(document.activeElement as HTMLElement)
    const go = (index: number): void => {
      event.preventDefault()
      all[(index + all.length) % all.length]?.focus({ preventScroll: true })
    }
    if (event.key === 'ArrowDown') go(at + 1)
    else if (event.key === 'ArrowUp') go(at - 1)
    else if (event.key === 'Home') go(0)
    else if (event.key === 'End') go(all.length - 1)
    else if (event.key === 'Tab') {
      event.preventDefault()
      onClose()
    } else if (event.key.length === 1 && event.key !== ' ' && !event.ctrlKey && !event.metaKey) {
      const now = Date.now()
      typed.current = {
        text: (now - typed.current.at > TYPE_AHEAD_MS ? '' : typed.current.text) + event.key.toLocaleLowerCase(),
        at: now,
      }
      const match = all.findIndex((item) => item.textContent.toLocaleLowerCase().startsWith(typed.current.text))
      if (match >= 0) go(match)
    }
  }

  return (
    <Popup
      anchor={anchor}
      onClose={onClose}
      label={label}
      role="menu"
      className="rpt-menu"
      onKeyDown={onKeyDown}
      {...(onRestoreFocus && { onRestoreFocus })}
    >
      <div ref={list} role="presentation">
        {header}
        {items.map((item, index) =>
          item === 'separator' ? (
            <div key={`separator-${index}`} className="rpt-menu-separator" role="separator" />
          ) : (
            <button
              key={item.id}
              type="button"
              className="rpt-menu-item"
              data-menu-item
              data-danger={item.isDanger || undefined}
              tabIndex={-1}
              {...(item.isChecked === undefined
                ? { role: 'menuitem' }
                : { role: 'menuitemradio', 'aria-checked': item.isChecked })}
              onClick={() => {
                // Closing first returns the focus. The action may then move the focus elsewhere.
                onClose()
                item.run()
              }}
            >
              <span className="rpt-menu-icon" aria-hidden="true">
                {item.icon}
              </span>
              <span className="rpt-menu-label">{item.label}</span>
              {item.isChecked && <span className="rpt-menu-check" aria-hidden="true" />}
              {item.shortcut && (
                <kbd className="rpt-kbd" aria-hidden="true">
                  {item.shortcut}
                </kbd>
              )}
            </button>
          ),
        )}
      </div>
    </Popup>
  )
}
