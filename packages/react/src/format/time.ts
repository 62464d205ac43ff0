/**
 * Formats dates and times with `Intl`. Formatters are slow to create, so each one is created on its
 * first use and then kept, per locale.
 */

const DAY_MS = 86_400_000

export interface TimeFormat {
  /** The time, such as "14:05". */
  time(date: Date): string
  /** For lists: "14:05" today, then "Yesterday", then the weekday, and from a week ago the date. */
  short(date: Date, now: Date): string
  /** The heading above the messages of a day. */
  day(date: Date, now: Date): string
  /** The complete date and time, for tooltips. */
  full(date: Date): string
  /** For use in a sentence, such as "14:05" or "yesterday 14:05". */
  moment(date: Date, now: Date): string
}

const formats = new Map<string, TimeFormat>()

export function timeFormat(locale: string, words: { today: string; yesterday: string }): TimeFormat {
  const known = formats.get(locale)
  if (known) return known
  const make = (options: Intl.DateTimeFormatOptions): { format(date: Date): string } => {
    let made: Intl.DateTimeFormat | undefined
    return { format: (value) => (made ??= new Intl.DateTimeFormat(locale, options)).format(value) }
  }
  const time = make({ hour: 'numeric', minute: '2-digit' })
  const weekday = make({ weekday: 'short' })
  const weekdayLong = make({ weekday: 'long' })
  const dayMonth = make({ day: 'numeric', month: 'short' })
  const dayMonthLong = make({ weekday: 'long', day: 'numeric', month: 'long' })
  const date = make({ day: 'numeric', month: 'numeric', year: '2-digit' })
  const dateLong = make({ day: 'numeric', month: 'long', year: 'numeric' })
  const full = make({ dateStyle: 'full', timeStyle: 'short' })

  const format: TimeFormat = {
    time: (value) => time.format(value),
    short(value, now) {
      const days = daysBetween(value, now)
      if (days <= 0) return time.format(value)
      if (days === 1) return words.yesterday
      if (days < 7) return weekday.format(value)
      return value.getFullYear() === now.getFullYear() ? dayMonth.format(value) : date.format(value)
    },
    day(value, now) {
      const days = daysBetween(value, now)
      if (days <= 0) return words.today
      if (days === 1) return words.yesterday
      if (days < 7) return weekdayLong.format(value)
      return value.getFullYear() === now.getFullYear() ? dayMonthLong.format(value) : dateLong.format(value)
    },
    full: (value) => full.format(value),
    moment(value, now) {
      const days = daysBetween(value, now)
      if (days <= 0) return time.format(value)
      const day =
        days === 1
          ? words.yesterday.toLocaleLowerCase(locale)
          : days < 7
            ? weekdayLong.format(value)
            : dayMonth.format(value)
      return `${day} ${time.format(value)}`
    },
  }
  formats.set(locale, format)
  return format
}

/** Counts the calendar days from `date` to `now` in the local zone, despite daylight saving. */
export function daysBetween(date: Date, now: Date): number {
  const midnight = (value: Date): number => Date.UTC(value.getFullYear(), value.getMonth(), value.getDate())
  return Math.round((midnight(now) - midnight(date)) / DAY_MS)
}

export function isSameDay(a: Date, b: Date): boolean {
  return daysBetween(a, b) === 0
}

/** Formats a size in bytes: 1,234,567 becomes "1.2 MB". */
export function fileSize(bytes: number, locale: string): string {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte'] as const
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return new Intl.NumberFormat(locale, {
    style: 'unit',
    unit: units[unit] ?? 'byte',
    unitDisplay: unit === 0 ? 'long' : 'short',
    maximumFractionDigits: unit > 1 ? 1 : 0,
  }).format(value)
}
