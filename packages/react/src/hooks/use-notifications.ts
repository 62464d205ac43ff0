'use client'

import { useCallback, useState } from 'react'
import { usePreferences } from './use-preferences'

export interface Notifications {
  permission: NotificationPermission | 'unsupported'
  /** Asks the user for permission. Call it in a click handler: browsers ignore requests on load. */
  request(): Promise<void>
  isOn: boolean
  setOn(isOn: boolean): void
}

function current(): Notifications['permission'] {
  return typeof Notification === 'undefined' ? 'unsupported' : Notification.permission
}

export function useNotifications(): Notifications {
  const { preferences, change } = usePreferences()
  const [permission, setPermission] = useState(current)
  const request = useCallback(async () => {
    if (typeof Notification !== 'undefined') setPermission(await Notification.requestPermission())
  }, [])
  const setOn = useCallback((isOn: boolean) => void change({ browser_enabled: isOn }), [change])
  return { permission, request, isOn: permission === 'granted' && preferences?.browser_enabled === true, setOn }
}
