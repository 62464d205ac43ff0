import { describe, expect, it } from 'vitest'
import { chunkRows, layoutRows, RowLayout } from '../../src/list/rows'
import { message, PEOPLE } from '../../src/testing/fake-client'

const { ana, ben } = PEOPLE
const at = (minutes: number): string => new Date(Date.UTC(2026, 10, 29, 10, minutes)).toISOString()

describe('layoutRows', () => {
  it('groups messages of one sender within five minutes', () => {
    const rows = layoutRows(
      [
        message('c', ben, '1', { seq: 1, created_at: at(0) }),
        message('c', ben, '2', { seq: 2, created_at: at(1) }),
        message('c', ben, '3', { seq: 3, created_at: at(2) }),
        message('c', ben, '4', { seq: 4, created_at: at(20) }),
        message('c', ana, '5', { seq: 5, created_at: at(21) }),
        message('c', ana, '6', { seq: 6, created_at: at(22) }),
      ],
      null,
    )
    expect(rows.map(({ position }) => position)).toEqual(['first', 'middle', 'last', 'single', 'first', 'last'])
  })

  it('starts a new group at the unread line', () => {
    const rows = layoutRows(
      [message('c', ben, '1', { seq: 1, created_at: at(0) }), message('c', ben, '2', { seq: 2, created_at: at(0) })],
      2,
    )
    expect(rows.map(({ position, isFirstUnread }) => [position, isFirstUnread])).toEqual([
      ['single', false],
      ['single', true],
    ])
  })

  it('has no unread line above a part of the history that begins later', () => {
    const stored = [40, 41, 42].map((seq) => message('c', ben, `${seq}`, { seq }))
    const lines = (from: number) => layoutRows(stored, from).map(({ isFirstUnread }) => isFirstUnread)
    expect(lines(41)).toEqual([false, true, false])
    expect(lines(40)).toEqual([true, false, false])
    expect(lines(12)).toEqual([false, false, false])
  })

  it('starts each day with a separator', () => {
    const rows = layoutRows(
      [
        message('c', ben, '1', { seq: 1, created_at: '2026-11-27T12:00:00Z' }),
        message('c', ben, '2', { seq: 2, created_at: '2026-11-29T12:00:00Z' }),
      ],
      null,
    )
    expect(rows.map(({ startsDay }) => startsDay)).toEqual([true, true])
  })
})

describe('chunkRows', () => {
  const messages = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, i) => message('c', ben, 'x', { seq: from + i, created_at: at(0) }))

  it('has borders that do not move when history is prepended', () => {
    const before = chunkRows(layoutRows(messages(50, 99), null))
    const after = chunkRows(layoutRows(messages(1, 99), null))
    const last = before.at(-1)
    expect(after.find(({ id }) => id === last?.id)?.rows.map(({ message: one }) => one.seq)).toEqual(
      last?.rows.map(({ message: one }) => one.seq),
    )
  })

  it('keeps an unsent message in the chunk that it will be stored in', () => {
    const stored = messages(1, 30)
    const echo = message('c', ana, 'echo', { seq: Number.POSITIVE_INFINITY })
    const pending = chunkRows(layoutRows([...stored, echo], null))
    const sent = chunkRows(layoutRows([...stored, { ...echo, seq: 31 }], null))
    expect(pending.at(-1)?.id).toBe(sent.at(-1)?.id)
  })

  it('never returns to an earlier chunk', () => {
    const ids = chunkRows(
      layoutRows([...messages(1, 45), message('c', ana, 'x', { seq: Number.POSITIVE_INFINITY })], null),
    ).map(({ id }) => id)
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b))
  })
})

describe('RowLayout', () => {
  const messages = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, i) =>
      message('c', ben, 'x', { id: `m${from + i}`, key: `m${from + i}`, seq: from + i, created_at: at(0) }),
    )

  it('returns the same objects for unchanged chunks', () => {
    const layout = new RowLayout()
    const all = messages(1, 99)
    const before = layout.layout(all.slice(40), null)
    const after = layout.layout(all, null)
    // The row that was first before now continues a group. The chunks below it are unchanged.
    expect(after.slice(-2)).toEqual(before.slice(-2))
    expect(after.at(-1)).toBe(before.at(-1))
    expect(after.at(-2)).toBe(before.at(-2))
  })

  it('lays out a changed message again', () => {
    const layout = new RowLayout()
    const all = messages(1, 9)
    const [before] = layout.layout(all, null)
    const [after] = layout.layout(
      [...all.slice(0, 8), { ...(all[8] as (typeof all)[number]), content: 'edited' }],
      null,
    )
    expect(after).not.toBe(before)
    expect(after?.rows[0]).toBe(before?.rows[0])
    expect(after?.rows[8]?.message.content).toBe('edited')
  })
})
