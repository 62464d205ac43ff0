'use client'

import type { Preferences, Result } from '@rapport-chat/client'
import { useCallback, useEffect } from 'react'
import { useChatClient } from '../context/chat-context'
import { useChatState } from '../context/use-store'

export interface PreferencesState {
  /** Null until the preferences are loaded. */
  preferences: Preferences | null
  change(values: Partial<Preferences>): Promise<Result<Preferences>>
}

export function usePreferences(): PreferencesState {
  const client = useChatClient()
  const preferences = useChatState((state) => state.preferences)
  useEffect(() => {
    if (!client.getState().preferences) void client.loadPreferences()
  }, [client])
  const change = useCallback((values: Partial<Preferences>) => client.setPreferences(values), [client])
  return { preferences, change }
}
