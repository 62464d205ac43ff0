import { describe, expect, test } from 'vitest'
import { Reader } from './reading'
import { FakeClock, FakePage, settled } from './testing'

function readerOf(part: Partial<{ lastReadSeq: number; isMarkedUnread: boolean; newestSeq: number }> = {}) {
  const clock = new FakeClock()
  const page = new FakePage()
  const marks: number[] = []
  const state = { lastReadSeq: 0, isMarkedUnread: false, newestSeq: 10, ...part }
  const server = { isReachable: true }
  const reader = new Reader({
    clock,
    page,
    state: () => state,
    mark: async (seq) => {
      marks.push(seq)
      if (server.isReachable) state.lastReadSeq = seq
      return server.isReachable
    },
  })
  return { clock, page, marks, state, server, reader }
}

const atEnd = { seq: 10, isAtEnd: true }

describe('at the end', () => {
  test('everything is read at once', () => {
    const { reader, marks } = readerOf()
    reader.show(atEnd)
    expect(marks).toEqual([10])
  })

  test('new messages are read as they arrive, with one request per second', async () => {
    const { reader, marks, state, clock } = readerOf()
    reader.show(atEnd)
    for (let seq = 11; seq <= 15; seq += 1) {
      state.newestSeq = seq
      reader.changed()
      await clock.advance(100)
    }
    expect(marks).toEqual([10])
    await clock.advance(1_000)
    expect(marks).toEqual([10, 15])
  })
})

describe('in the middle', () => {
  test('rows are read after being visible for a second', async () => {
    const { reader, marks, clock } = readerOf()
    reader.show({ seq: 4, isAtEnd: false })
    await clock.advance(999)
    reader.show({ seq: 5, isAtEnd: false })
    await clock.advance(999)
    expect(marks).toEqual([])
    await clock.advance(1)
    expect(marks).toEqual([5])
  })

  test('rows before the last read position are not marked again', async () => {
    const { reader, marks, clock } = readerOf({ lastReadSeq: 6 })
    reader.show({ seq: 4, isAtEnd: false })
    await clock.advance(5_000)
    expect(marks).toEqual([])
  })
})

describe('without attention nothing is read', () => {
  test.each([{ isVisible: false }, { hasFocus: false }])('%o', async (part) => {
    const { reader, marks, page, clock } = readerOf()
    page.set(part)
    reader.show(atEnd)
    await clock.advance(60_000)
    expect(marks).toEqual([])
    page.set({ isVisible: true, hasFocus: true })
    expect(marks).toEqual([10])
  })

  test('attention that ends within the second does not count', async () => {
    const { reader, marks, page, clock } = readerOf()
    reader.show({ seq: 4, isAtEnd: false })
    await clock.advance(500)
    page.set({ hasFocus: false })
    await clock.advance(5_000)
    expect(marks).toEqual([])
  })
})

describe('marked as unread', () => {
  test('an open conversation stays unread until it is closed', async () => {
    const { reader, marks, clock } = readerOf()
    reader.keepUnread()
    reader.show(atEnd)
    reader.changed()
    await clock.advance(60_000)
    reader.close()
    expect(marks).toEqual([])
  })

  test('a conversation that was marked earlier is read when it is displayed', () => {
    const { reader, marks } = readerOf({ lastReadSeq: 10, isMarkedUnread: true })
    reader.show(atEnd)
    expect(marks).toEqual([10])
  })
})

test('closing the conversation sends what was read', async () => {
  const { reader, marks, state, clock, page } = readerOf()
  reader.show(atEnd)
  state.newestSeq = 11
  reader.changed()
  reader.close()
  expect(marks).toEqual([10, 11])
  expect([clock.waiting, page.listenerCount]).toEqual([0, 0])
})

test('a failed request is repeated when the user reads on', async () => {
  const { reader, marks, server, clock } = readerOf()
  server.isReachable = false
  reader.show(atEnd)
  await settled()
  server.isReachable = true
  await clock.advance(1_000)
  reader.changed()
  expect(marks).toEqual([10, 10])
})
