import { NotificationSettings } from '@rapport-chat/react'
import { useRef, type ReactNode } from 'react'

/** A button that opens the user's settings in a dialog. */
export function Settings(): ReactNode {
  const dialog = useRef<HTMLDialogElement>(null)
  return (
    <>
      <button
        type="button"
        className="demo-button"
        aria-label="Settings"
        title="Settings"
        aria-haspopup="dialog"
        onClick={() => dialog.current?.showModal()}
      >
        <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
          <path d="M4 7h9m5 0h2M4 17h2m5 0h9M15.500 4.500a2.500 2.500 0 1 1 0 5 2.500 2.500 0 0 1 0-5Zm-7 10a2.500 2.500 0 1 1 0 5 2.500 2.500 0 0 1 0-5Z" />
        </svg>
      </button>
      <dialog
        ref={dialog}
        className="demo-settings"
        aria-labelledby="settings-title"
        onPointerDown={(event) => event.target === event.currentTarget && dialog.current?.close()}
      >
        <div>
          <header>
            <h2 id="settings-title">Settings</h2>
            <button type="button" className="demo-button" aria-label="Close" onClick={() => dialog.current?.close()}>
              <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
                <path d="M18 6 6 18M6 6l12 12" />
              </svg>
            </button>
          </header>
          <NotificationSettings />
        </div>
      </dialog>
    </>
  )
}
