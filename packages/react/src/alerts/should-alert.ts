import type { ChatState, Conversation, Preferences, TimelineMessage } from '@rapport-chat/client'

interface Received {
  readonly message: TimelineMessage
  readonly conversation: Conversation | null
  /** Whether the conversation is displayed in a window that has the focus. */
  readonly isSeen: boolean
  readonly now: Date
}

/** Whether this tab should alert the user to the message with a sound or notification. */
export function shouldAlert(state: ChatState, { message, conversation, isSeen, now }: Received): boolean {
  const { preferences, isLeader, me } = state
  // Of all tabs, only the leader, which holds the connection, alerts the user.
  if (!isLeader || isSeen || !preferences) return false
  if (conversation?.is_muted || conversation?.notification_level === 'none') return false
  if (conversation?.notification_level === 'mentions' && !message.mentions.includes(me.id)) return false
  if (preferences.dnd_until && new Date(preferences.dnd_until) > now) return false
  return !isQuiet(preferences, now)
}

/** Whether `now` is in the quiet hours. They use the user's time zone and may include midnight. */
export function isQuiet({ quiet_start: start, quiet_end: end, timezone }: Preferences, now: Date): boolean {
  if (!start || !end) return false
  const time = timeIn(timezone, now)
  const [from, to] = [start.slice(0, 5), end.slice(0, 5)]
  return from <= to ? time >= from && time < to : time >= from || time < to
}

function timeIn(timeZone: string, now: Date): string {
  const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const
  try {
    return now.toLocaleTimeString('en-GB', { ...options, timeZone })
  } catch {
    // The browser does not know the time zone, so its own zone is used.
    return now.toLocaleTimeString('en-GB', options)
  }
}
