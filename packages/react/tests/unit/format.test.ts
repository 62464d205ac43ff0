import { describe, expect, it } from 'vitest'
import { accentFrom, contrast, parseHex } from '../../src/format/accent'
import { displayName, initials, toneOf } from '../../src/format/names'
import { daysBetween, fileSize, timeFormat } from '../../src/format/time'
import { ar } from '../../src/strings/ar'
import { de } from '../../src/strings/de'
import { en } from '../../src/strings/en'

describe('names', () => {
  it('falls back to the email address, then to "Unknown user"', () => {
    expect(displayName({ full_name: ' ', email: 'a@example.com' }, en)).toBe('a@example.com')
    expect(displayName(null, en)).toBe('Unknown user')
  })

  it('cannot reorder the text around them', () => {
    expect(displayName({ full_name: '\u202Enimda' }, en)).toBe('nimda')
  })

  it('takes initials from whole letters', () => {
    expect(initials('Ana Alvarez')).toBe('AA')
    expect(initials('ben')).toBe('B')
    expect(initials('👩‍💻 Developer')).toBe('👩‍💻D')
    expect(initials('')).toBe('')
  })

  it('derives the same tone each time', () => {
    expect(toneOf('some-id')).toBe(toneOf('some-id'))
    expect(toneOf('some-id')).toBeLessThan(8)
  })
})

describe('times', () => {
  const now = new Date(2026, 10, 29, 12, 0)
  const format = timeFormat('en', en)

  it('shows the time today, then the day, then the date', () => {
    expect(format.short(new Date(2026, 10, 29, 9, 5), now)).toBe('9:05 AM')
    expect(format.short(new Date(2026, 10, 28, 23, 59), now)).toBe('Yesterday')
    expect(format.short(new Date(2026, 10, 25, 9, 5), now)).toBe('Wed')
    expect(format.short(new Date(2026, 0, 25, 9, 5), now)).toBe('Jan 25')
    expect(format.short(new Date(2024, 0, 25, 9, 5), now)).toBe('1/25/24')
  })

  it('counts calendar days, even when clocks change', () => {
    expect(daysBetween(new Date(2026, 2, 28, 23, 0), new Date(2026, 2, 30, 1, 0))).toBe(2)
    expect(daysBetween(new Date(2026, 9, 24, 0, 30), new Date(2026, 9, 26, 0, 10))).toBe(2)
  })

  it('writes sizes with units', () => {
    expect(fileSize(2_483_112, 'en')).toBe('2.5 MB')
  })
})

describe('accentFrom', () => {
  it('darkens a brand colour until white text can be read on it', () => {
    const { own } = accentFrom('#66BB6A')
    expect(contrast(parseHex(own), [255, 255, 255])).toBeGreaterThanOrEqual(4.5)
  })

  it('does not change a colour that is dark enough', () => {
    expect(accentFrom('#2f5bd7').own).toBe('#2f5bd7')
  })
})

describe('strings', () => {
  it.each([
    ['de', de],
    ['ar', ar],
  ])('%s has all texts', (_, strings) => {
    for (const [key, value] of Object.entries(en)) {
      if (key === 'typingNone') continue
      expect(typeof strings[key as keyof typeof en], key).toBe(typeof value)
      if (typeof value === 'string') expect(strings[key as keyof typeof en], key).not.toBe('')
    }
  })

  it('follows the plural rules of the language', () => {
    expect(en.newMessagesBelow(1)).toBe('1 new message')
    expect(en.newMessagesBelow(3)).toBe('3 new messages')
    expect(ar.newMessagesBelow(2)).toContain('رسالتان')
    expect(en.messagesUnread(0)).toBe('Messages')
  })
})
