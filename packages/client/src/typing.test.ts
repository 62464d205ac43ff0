import { describe, expect, test } from 'vitest'
import { FakeClock } from './testing'
import { TypingWatch } from './typing'
import { TypingReporter } from './typing-reporter'
import type { Typing } from './types'

describe('reporting', () => {
  function reporterOf() {
    const clock = new FakeClock()
    const start = clock.now()
    const reports: [seconds: number, isTyping: boolean][] = []
    const reporter = new TypingReporter(clock, (isTyping) => reports.push([(clock.now() - start) / 1_000, isTyping]))
    return { clock, reporter, reports }
  }

  test('starts with the first key, repeats every three seconds, and ends five seconds after the last key', async () => {
    const { clock, reporter, reports } = reporterOf()
    for (let key = 0; key < 20; key += 1) {
      reporter.input('text')
      await clock.advance(500)
    }
    await clock.advance(60_000)
    expect(reports).toEqual([
      [0, true],
      [3, true],
      [6, true],
      [9, true],
      [14.5, false],
    ])
  })

  test('white space is not reported, and erasing the text ends typing', () => {
    const { reporter, reports } = reporterOf()
    reporter.input('  \n')
    expect(reports).toEqual([])
    reporter.input('a')
    reporter.input('')
    expect(reports).toEqual([
      [0, true],
      [0, false],
    ])
  })

  test('ends typing at once, and only once', () => {
    const { clock, reporter, reports } = reporterOf()
    reporter.input('a')
    reporter.stop()
    reporter.stop()
    expect(reports.map(([, isTyping]) => isTyping)).toEqual([true, false])
    expect(clock.waiting).toBe(0)
  })
})

describe('watching', () => {
  function watchOf() {
    const clock = new FakeClock()
    const seen: Typing[] = []
    return { clock, seen, watch: new TypingWatch(clock, (typing) => seen.push(typing)) }
  }

  test('a report is valid until it expires, and a repeated report extends it', async () => {
    const { clock, seen, watch } = watchOf()
    watch.received('a', 'ben', true, 6_000)
    await clock.advance(3_000)
    watch.received('a', 'ben', true, 6_000)
    await clock.advance(5_999)
    expect(seen).toEqual([{ a: ['ben'] }])
    await clock.advance(1)
    expect(seen.at(-1)).toEqual({})
  })

  test('several users can type, in several conversations', () => {
    const { seen, watch } = watchOf()
    watch.received('a', 'ben', true, 6_000)
    watch.received('a', 'cem', true, 6_000)
    watch.received('b', 'ben', true, 6_000)
    watch.received('a', 'ben', false, 0)
    expect(seen.at(-1)).toEqual({ a: ['cem'], b: ['ben'] })
  })

  test('a lost connection ends all typing', () => {
    const { clock, seen, watch } = watchOf()
    watch.received('a', 'ben', true, 6_000)
    watch.clear()
    expect(seen.at(-1)).toEqual({})
    expect(clock.waiting).toBe(0)
  })
})
