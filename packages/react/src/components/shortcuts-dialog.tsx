'use client'

import type { ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { Dialog } from '../parts/dialog'

function modKey(): string {
  return typeof navigator !== 'undefined' && /Mac|iPhone|iPad/u.test(navigator.userAgent) ? '⌘' : 'Ctrl'
}

export function ShortcutsDialog({ title, onClose }: { title: string; onClose: () => void }): ReactNode {
  const { shortcutList: texts } = useStrings()
  const mod = modKey()
  const rows: readonly [readonly string[], string][] = [
    [[mod, 'K'], texts.find],
    [['Alt', '↑ ↓'], texts.previousNext],
    [['Alt', 'Shift', '↑ ↓'], texts.unreadPreviousNext],
    [[mod, 'Shift', 'F'], texts.searchMessages],
    [['F6'], texts.regions],
    [['↑', '↓', 'Home', 'End'], texts.rows],
    [['Enter'], texts.actions],
    [['R', 'E', 'Del', 'C', '+', 'U'], texts.single],
    [['Esc'], texts.toComposer],
    [['↑'], texts.editLast],
    [[mod, '/'], texts.table],
  ]
  return (
    <Dialog title={title} onClose={onClose}>
      <dl className="rpt-shortcuts">
        {rows.map(([keys, text]) => (
          <div key={text} className="rpt-shortcut">
            <dt>
              {keys.map((key) => (
                <kbd key={key} className="rpt-kbd">
                  {key}
                </kbd>
              ))}
            </dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  )
}
