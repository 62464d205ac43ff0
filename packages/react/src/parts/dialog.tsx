'use client'

import { X } from 'lucide-react'
import { useId, useLayoutEffect, useRef, type ReactNode } from 'react'
import { useStrings } from '../context/chat-context'
import { IconButton } from './icon-button'

export interface DialogProps {
  title: string
  onClose: () => void
  /** `panel` is full screen on a phone. `question` stays small. `wide` has room for an image. */
  kind?: 'panel' | 'question' | 'wide'
  children: ReactNode
  footer?: ReactNode
}

/**
 * The browser's modal dialog. It traps the focus, closes on Escape and makes the rest of the page
 * inert. It opens when it is mounted.
 */
export function Dialog({ title, onClose, kind = 'panel', children, footer }: DialogProps): ReactNode {
  const strings = useStrings()
  const dialog = useRef<HTMLDialogElement>(null)
  const heading = useId()

  useLayoutEffect(() => {
    const element = dialog.current
    if (!element) return
    const before = document.activeElement
    // jsdom has no modal dialogs.
    if (element.showModal) element.showModal()
    else element.setAttribute('open', '')
    element.querySelector<HTMLElement>('[data-autofocus]')?.focus()
    return () => {
      element.close?.()
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true })
    }
  }, [])

  return (
    <dialog
      ref={dialog}
      className="rpt-dialog"
      data-slot="dialog"
      data-kind={kind}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault()
        onClose()
      }}
      onKeyDown={(event) => event.stopPropagation()}
      onPointerDown={(event) => {
        // A click on the backdrop targets the dialog element. The content is in a box inside it.
        if (event.target === event.currentTarget) onClose()
      }}
    >
      <div className="rpt-dialog-box">
        <header className="rpt-dialog-header">
          <h2 id={heading} className="rpt-dialog-title">
            {title}
          </h2>
          <IconButton label={strings.close} onClick={onClose}>
            <X aria-hidden size={20} />
          </IconButton>
        </header>
        <div className="rpt-dialog-content">{children}</div>
        {footer && <footer className="rpt-dialog-footer">{footer}</footer>}
      </div>
    </dialog>
  )
}

export interface ConfirmDialogProps {
  title: string
  text: string
  confirm: string
  isDanger?: boolean
  onConfirm: () => void
  onClose: () => void
}

/** Asks for confirmation of an action. The focus is on the button that cancels. */
export function ConfirmDialog({ title, text, confirm, isDanger = true, onConfirm, onClose }: ConfirmDialogProps): ReactNode {
  const strings = useStrings()
  return (
    <Dialog
      title={title}
      kind="question"
      onClose={onClose}
      footer={
        <>
          <button type="button" className="rpt-button" data-autofocus onClick={onClose}>
            {strings.cancel}
          </button>
          <button
            type="button"
            className="rpt-button"
            data-kind={isDanger ? 'danger' : 'primary'}
            onClick={() => {
              onClose()
              onConfirm()
            }}
          >
            {confirm}
          </button>
        </>
      }
    >
      <p className="rpt-dialog-text">{text}</p>
    </Dialog>
  )
}
