import { describe, expect, test } from 'vitest'
import { message, rowOf } from '../test/fixtures'
import { fromAnswer, fromRow, isIncomplete, merge, type MessageRow } from './messages'

const answer = fromAnswer(message({ seq: 1, rev: 3 }))
const row = (rev: number, part: Parameters<typeof message>[0] = { seq: 1 }) =>
  fromRow(rowOf(message({ ...part, rev })) as unknown as MessageRow)

/** Whether a message is fetched when `incoming` is merged into `held`. */
const asks = (held: Parameters<typeof isIncomplete>[1], incoming: Parameters<typeof isIncomplete>[0]) =>
  isIncomplete(merge(held, incoming), held)

describe('a message is fetched', () => {
  test('when its row does not show what changed', () => {
    expect(asks(answer, row(4))).toBe(true)
  })

  test('but not when the row shows the change', () => {
    expect(asks(answer, row(4, { seq: 1, content: 'edited', updated_at: '2026-01-02T00:00:00Z' }))).toBe(false)
    expect(asks(answer, row(4, { seq: 1, is_deleted: true, content: '' }))).toBe(false)
  })

  test('when it is new and quotes another one', () => {
    expect(asks(undefined, row(1))).toBe(false)
    expect(asks(undefined, row(1, { seq: 1, reply_to_id: 'm0' }))).toBe(true)
  })

  test('when its first response is older than its row', () => {
    expect(asks(row(4), answer)).toBe(true)
    expect(asks(row(3), answer)).toBe(false)
  })
})

test('a row that is not newer changes nothing', () => {
  expect(merge(answer, row(3))).toBe(answer)
  expect(merge(answer, row(2))).toBe(answer)
})
