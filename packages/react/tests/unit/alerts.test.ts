import { describe, expect, it } from 'vitest'
import { isQuiet, shouldAlert } from '../../src/alerts/should-alert'
import { conversation, initialState, message, PEOPLE, PREFERENCES } from '../../src/testing/fake-client'

const preferences = { ...PREFERENCES, quiet_start: null, quiet_end: null }
const state = initialState({ preferences })
const now = new Date('2026-11-29T12:00:00Z')
const received = { message: message('c', PEOPLE.ben, 'hi'), conversation: conversation(PEOPLE.ben), isSeen: false, now }

describe('shouldAlert', () => {
  it('alerts the user to a new message', () => expect(shouldAlert(state, received)).toBe(true))

  it('does not alert to a seen message, in a muted conversation, in a tab that is not the leader, or without preferences', () => {
    expect(shouldAlert(state, { ...received, isSeen: true })).toBe(false)
    expect(shouldAlert(state, { ...received, conversation: conversation(PEOPLE.ben, { is_muted: true }) })).toBe(false)
    expect(shouldAlert({ ...state, isLeader: false }, received)).toBe(false)
    expect(shouldAlert({ ...state, preferences: null }, received)).toBe(false)
  })

  it('follows the notification level of the conversation', () => {
    expect(
      shouldAlert(state, { ...received, conversation: conversation(PEOPLE.ben, { notification_level: 'none' }) }),
    ).toBe(false)
    const mentions = conversation(PEOPLE.ben, { notification_level: 'mentions' })
    expect(shouldAlert(state, { ...received, conversation: mentions })).toBe(false)
    expect(
      shouldAlert(state, {
        ...received,
        conversation: mentions,
        message: message('c', PEOPLE.ben, 'hi', { mentions: [PEOPLE.ana.id] }),
      }),
    ).toBe(true)
  })

  it('waits until "do not disturb" has ended', () => {
    expect(
      shouldAlert({ ...state, preferences: { ...preferences, dnd_until: '2026-11-29T12:30:00Z' } }, received),
    ).toBe(false)
    expect(
      shouldAlert({ ...state, preferences: { ...preferences, dnd_until: '2026-11-29T11:30:00Z' } }, received),
    ).toBe(true)
  })
})

describe('isQuiet', () => {
  const quiet = (start: string, end: string, time: string, timezone = 'UTC') =>
    isQuiet({ ...PREFERENCES, quiet_start: start, quiet_end: end, timezone }, new Date(`2026-11-29T${time}:00Z`))

  it('recognizes quiet hours with and without midnight', () => {
    expect(quiet('22:00', '07:00', '23:30')).toBe(true)
    expect(quiet('22:00', '07:00', '06:59')).toBe(true)
    expect(quiet('22:00', '07:00', '07:00')).toBe(false)
    expect(quiet('12:00:00', '13:00:00', '12:30')).toBe(true)
  })

  it('uses the time zone of the preferences, or the local one if that is unknown', () => {
    expect(quiet('22:00', '07:00', '14:00', 'Asia/Tokyo')).toBe(true)
    expect(quiet('22:00', '07:00', '14:00', 'No/Where')).toBe(
      quiet('22:00', '07:00', '14:00', Intl.DateTimeFormat().resolvedOptions().timeZone),
    )
  })
})
