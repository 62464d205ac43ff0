import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { message } from '../test/fixtures'
import { coveredBy, History, MAX_MESSAGES, type LoadedPage, type PagePosition } from './history'
import { fromAnswer } from './messages'
import { addRange, rangeAt } from './ranges'

/** Returns a page of a conversation that has `length` messages. */
function pageOf(length: number, position: PagePosition, limit: number): LoadedPage {
  const [from, to] = {
    newest: () => [length - limit + 1, length],
    before: () => (position.at === 'before' ? [position.seq - limit, position.seq - 1] : []),
    after: () => (position.at === 'after' ? [position.seq + 1, position.seq + limit] : []),
    around: () =>
      position.at === 'around'
        ? [Number(position.anchor) - Math.floor(limit / 2), Number(position.anchor) + Math.ceil(limit / 2) - 1]
        : [],
  }[position.at]() as [number, number]
  const first = Math.max(1, from)
  const last = Math.min(length, to)
  const messages = Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => message({ seq: first + index }))
  return { messages, hasOlder: first > 1, hasNewer: last < length }
}

describe('ranges', () => {
  test('cover the union, sorted and disjoint, whatever the order in which they are added', () => {
    const range = fc.tuple(fc.nat(40), fc.nat(10)).map(([from, length]) => ({ from, to: from + length }))
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (added) => {
        const ranges = added.reduce<readonly { from: number; to: number }[]>(addRange, [])
        for (let seq = 0; seq <= 51; seq += 1) {
          expect(rangeAt(ranges, seq) !== undefined).toBe(added.some(({ from, to }) => from <= seq && seq <= to))
        }
        ranges.forEach((after, index) => expect(after.from).toBeGreaterThan((ranges[index - 1]?.to ?? -2) + 1))
        expect(added.toReversed().reduce<readonly { from: number; to: number }[]>(addRange, [])).toEqual(ranges)
      }),
    )
  })
})

describe('a history', () => {
  test('displays messages without gaps, whatever was loaded', () => {
    const position = fc.oneof(
      fc.constant<PagePosition>({ at: 'newest' }),
      fc.integer({ min: 1, max: 60 }).map((seq): PagePosition => ({ at: 'before', seq })),
      fc.integer({ min: 1, max: 60 }).map((seq): PagePosition => ({ at: 'after', seq })),
      fc.integer({ min: 1, max: 60 }).map((seq): PagePosition => ({ at: 'around', anchor: String(seq) })),
    )
    fc.assert(
      fc.property(fc.array(position, { maxLength: 8 }), fc.integer({ min: 1, max: 60 }), (positions, anchor) => {
        const history = new History()
        for (const at of positions) history.addPage(at, pageOf(60, at, 10))
        history.display(anchor)
        const seqs = history.messages.map(({ row }) => row.seq)
        seqs.forEach((seq, index) => expect(seq).toBe((seqs[0] ?? 0) + index))
        if (history.range) expect(seqs).toContain(anchor)
        if (history.range?.to === Infinity) expect(seqs.at(-1)).toBe(60)
      }),
    )
  })

  test('joins the pages around a jump with the end when they meet', () => {
    const history = new History()
    history.addPage({ at: 'newest' }, pageOf(100, { at: 'newest' }, 10))
    history.addPage({ at: 'around', anchor: '50' }, pageOf(100, { at: 'around', anchor: '50' }, 10))
    history.display(50)
    expect(history.range).toEqual({ from: 45, to: 54 })
    for (let seq = 54; history.range?.to !== Infinity; seq += 10)
      history.addPage({ at: 'after', seq }, pageOf(100, { at: 'after', seq }, 10))
    expect(history.messages.map(({ row }) => row.seq)).toEqual(Array.from({ length: 56 }, (_, index) => index + 45))
  })

  test('keeps a message that arrives while the page is being loaded', () => {
    const history = new History()
    history.upsert(fromAnswer(message({ seq: 4 })))
    expect(history.messages).toEqual([])
    history.addPage({ at: 'newest' }, pageOf(3, { at: 'newest' }, 10))
    expect(history.messages.map(({ row }) => row.seq)).toEqual([1, 2, 3, 4])
  })

  test('drops messages at the end that is farther from the reader', () => {
    const history = new History()
    const length = MAX_MESSAGES + 100
    history.addPage({ at: 'newest' }, pageOf(length, { at: 'newest' }, 50))
    for (let seq = length - 49; seq > 1; seq -= 50) {
      history.display(seq)
      history.addPage({ at: 'before', seq }, pageOf(length, { at: 'before', seq }, 50))
    }
    expect(history.messages).toHaveLength(MAX_MESSAGES)
    expect(history.range).toEqual({ from: 0, to: MAX_MESSAGES })
  })

  test('drops messages far from the reader when live messages exceed the limit', () => {
    for (const anchor of [Infinity, 5]) {
      const history = new History()
      history.addPage({ at: 'newest' }, pageOf(20, { at: 'newest' }, 20))
      history.display(anchor)
      for (let seq = 21; seq <= 2 * MAX_MESSAGES; seq += 1) history.upsert(fromAnswer(message({ seq })))
      expect(history.messages.length).toBeLessThanOrEqual(MAX_MESSAGES + 100)
      expect(history.messages.some(({ row }) => row.seq === (anchor === Infinity ? 2 * MAX_MESSAGES : anchor))).toBe(
        true,
      )
    }
  })

  test('derives a range from an empty page only if no messages lie beyond it', () => {
    expect(coveredBy({ at: 'before', seq: 5 }, { messages: [], hasOlder: false, hasNewer: true })).toEqual({
      from: 0,
      to: 4,
    })
    expect(coveredBy({ at: 'after', seq: 5 }, { messages: [], hasOlder: true, hasNewer: false })).toEqual({
      from: 6,
      to: Infinity,
    })
    expect(coveredBy({ at: 'newest' }, { messages: [], hasOlder: true, hasNewer: false })).toBeUndefined()
  })
})
