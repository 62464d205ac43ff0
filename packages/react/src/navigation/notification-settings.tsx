'use client'

import type { Preferences } from '@rapport-chat/client'
import { useId, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { useNotifications } from '../hooks/use-notifications'
import { usePreferences } from '../hooks/use-preferences'

type Switches = 'sound_enabled' | 'show_preview' | 'share_read_receipts' | 'share_typing' | 'share_presence'

/** The settings for notifications, quiet hours and privacy. Changes are saved immediately. */
export function NotificationSettings(): ReactNode {
  const { strings, toast } = useChatContext()
  const { preferences, change } = usePreferences()
  const { permission, request, isOn, setOn } = useNotifications()
  if (!preferences) return <div className="rpt rpt-settings" data-slot="settings" aria-busy="true" />

  const save = (values: Partial<Preferences>): void => {
    void change(values).then(({ error }) => error && toast({ kind: 'error', text: error.message }))
  }
  const bind = (key: Switches): { isOn: boolean; onChange: (isOn: boolean) => void } => ({
    isOn: preferences[key],
    onChange: (value) => save({ [key]: value }),
  })
  const hasQuiet = preferences.quiet_start !== null && preferences.quiet_end !== null
  return (
    <div className="rpt rpt-settings" data-slot="settings">
      <fieldset className="rpt-fieldset">
        <legend className="rpt-legend">{strings.notifications}</legend>
        {permission !== 'unsupported' && (
          <Switch
            label={strings.notifyBrowser}
            isOn={isOn}
            isDisabled={permission === 'denied'}
            onChange={(value) => {
              // Permission must be requested in a click. Browsers ignore other requests.
              if (value && permission === 'default') void request()
              setOn(value)
            }}
          />
        )}
        <Switch label={strings.notifySound} {...bind('sound_enabled')} />
        <Switch label={strings.notifyPreview} {...bind('show_preview')} />
        <Switch
          label={strings.notifyQuiet}
          isOn={hasQuiet}
          onChange={(value) =>
            save(value ? { quiet_start: '22:00', quiet_end: '07:00' } : { quiet_start: null, quiet_end: null })
          }
        />
        {hasQuiet && (
          <div className="rpt-quiet">
            <label>
              {strings.quietFrom}{' '}
              <input
                className="rpt-time-input"
                type="time"
                value={preferences.quiet_start?.slice(0, 5)}
                onChange={(event) => event.currentTarget.value && save({ quiet_start: event.currentTarget.value })}
              />
            </label>
            <label>
              {strings.quietUntil}{' '}
              <input
                className="rpt-time-input"
                type="time"
                value={preferences.quiet_end?.slice(0, 5)}
                onChange={(event) => event.currentTarget.value && save({ quiet_end: event.currentTarget.value })}
              />
            </label>
          </div>
        )}
      </fieldset>
      <fieldset className="rpt-fieldset">
        <legend className="rpt-legend">{strings.privacy}</legend>
        <Switch label={strings.shareReceipts} hint={strings.shareReceiptsHint} {...bind('share_read_receipts')} />
        <Switch label={strings.shareTyping} {...bind('share_typing')} />
        <Switch label={strings.sharePresence} {...bind('share_presence')} />
      </fieldset>
    </div>
  )
}

interface SwitchProps {
  label: string
  hint?: string
  isOn: boolean
  isDisabled?: boolean
  onChange: (isOn: boolean) => void
}

function Switch({ label, hint, isOn, isDisabled = false, onChange }: SwitchProps): ReactNode {
  const id = useId()
  return (
    <label className="rpt-switch-row">
      <span>
        <span className="rpt-switch-label">{label}</span>
        {hint && (
          <span id={id} className="rpt-switch-hint">
            {hint}
          </span>
        )}
      </span>
      <input
        className="rpt-switch"
        type="checkbox"
        role="switch"
        checked={isOn}
        disabled={isDisabled}
        aria-label={label}
        aria-describedby={hint ? id : undefined}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
    </label>
  )
}
