import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { message } from '../test/fixtures'
import { coveredBy, History, MAX_MESSAGES, type LoadedPage } from './history'
import { fromAnswer } from './messages'
import { addRange } from './ranges'

/** The page before, after or around a position; without one, the newest page. */
type Position = { before?: number; after?: number; around?: number }

/** Returns a page of a conversation that has `length` messages. */
function pageOf(length: number, { around, ...position }: Position, limit: number): LoadedPage {
  const { before, after } = position
  const from =
    before !== undefined
      ? before - limit
      : after !== undefined
        ? after + 1
        : around !== undefined
          ? around - Math.floor(limit / 2)
          : length - limit + 1
  const first = Math.max(1, from)
  const last = Math.min(length, from + limit - 1)
  const messages = Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => message({ seq: first + index }))
  return { ...position, messages, hasOlder: first > 1, hasNewer: last < length }
}

describe('ranges', () => {
  test('cover the union, sorted and disjoint, whatever the order in which they are added', () => {
    const range = fc.tuple(fc.nat(40), fc.nat(10)).map(([from, length]) => ({ from, to: from + length }))
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (added) => {
        const ranges = added.reduce<readonly { from: number; to: number }[]>(addRange, [])
        for (let seq = 0; seq <= 51; seq += 1) {
          const contains = ({ from, to }: { from: number; to: number }) => from <= seq && seq <= to
          expect(ranges.some(contains)).toBe(added.some(contains))
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
      fc.constant<Position>({}),
      fc.integer({ min: 1, max: 60 }).map((before): Position => ({ before })),
      fc.integer({ min: 1, max: 60 }).map((after): Position => ({ after })),
      fc.integer({ min: 1, max: 60 }).map((around): Position => ({ around })),
    )
    fc.assert(
      fc.property(fc.array(position, { maxLength: 8 }), fc.integer({ min: 1, max: 60 }), (positions, anchor) => {
        const history = new History()
        for (const at of positions) history.addPage(pageOf(60, at, 10))
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
    history.addPage(pageOf(100, {}, 10))
    history.addPage(pageOf(100, { around: 50 }, 10))
    history.display(50)
    expect(history.range).toEqual({ from: 45, to: 54 })
    for (let seq = 54; history.range?.to !== Infinity; seq += 10)
      history.addPage(pageOf(100, { after: seq }, 10))
    expect(history.messages.map(({ row }) => row.seq)).toEqual(Array.from({ length: 56 }, (_, index) => index + 45))
  })

  test('keeps a message that arrives while the page is being loaded', () => {
    const history = new History()
    history.upsert(fromAnswer(message({ seq: 4 })))
    expect(history.messages).toEqual([])
    history.addPage(pageOf(3, {}, 10))
    expect(history.messages.map(({ row }) => row.seq)).toEqual([1, 2, 3, 4])
  })

  test('drops messages at the end that is farther from the reader', () => {
    const history = new History()
    const length = MAX_MESSAGES + 100
    history.addPage(pageOf(length, {}, 50))
    for (let seq = length - 49; seq > 1; seq -= 50) {
      history.display(seq)
      history.addPage(pageOf(length, { before: seq }, 50))
    }
    expect(history.messages).toHaveLength(MAX_MESSAGES)
    expect(history.range).toEqual({ from: 0, to: MAX_MESSAGES })
  })

  test('drops messages far from the reader when live messages exceed the limit', () => {
    for (const anchor of [Infinity, 5]) {
      const history = new History()
      history.addPage(pageOf(20, {}, 20))
      history.display(anchor)
      for (let seq = 21; seq <= 2 * MAX_MESSAGES; seq += 1) history.upsert(fromAnswer(message({ seq })))
      expect(history.messages.length).toBeLessThanOrEqual(MAX_MESSAGES + 100)
      expect(history.messages.some(({ row }) => row.seq === (anchor === Infinity ? 2 * MAX_MESSAGES : anchor))).toBe(
        true,
      )
    }
  })

  test('derives a range from an empty page only if no messages lie beyond it', () => {
    const empty = { messages: [], hasOlder: true, hasNewer: true }
    expect(coveredBy({ ...empty, before: 5, hasOlder: false })).toEqual({ from: 0, to: 4 })
    expect(coveredBy({ ...empty, before: 5 })).toBeUndefined()
    expect(coveredBy({ ...empty, after: 5, hasNewer: false })).toEqual({ from: 6, to: Infinity })
    expect(coveredBy({ ...empty, after: 5 })).toBeUndefined()
    expect(coveredBy({ ...empty, hasNewer: false })).toBeUndefined()
  })
})
