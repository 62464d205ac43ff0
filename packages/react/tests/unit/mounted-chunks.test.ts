import { describe, expect, it } from 'vitest'
import { MountedChunks } from '../../src/list/mounted-chunks'
import { layoutRows, type Chunk } from '../../src/list/rows'
import { message, PEOPLE } from '../../src/testing/fake-client'

const rows = layoutRows(
  Array.from({ length: 10 }, (_, index) => message('c', PEOPLE.ben, String(index))),
  null,
)

const chunks = (from: number, to: number): Chunk[] =>
  Array.from({ length: to - from + 1 }, (_, index) => ({ id: from + index, rows }))

const ids = (list: readonly Chunk[]): number[] => list.map(({ id }) => id)

describe('MountedChunks', () => {
  it('mounts the two newest chunks first, then one more each time', () => {
    const mounting = new MountedChunks()
    const all = chunks(1, 100)
    expect(mounting.of(all, null)).toEqual({ mounted: chunks(99, 100), hasMore: true })
    mounting.mountMore(all)
    expect(ids(mounting.of(all, null).mounted)).toEqual([98, 99, 100])
    // Rendering again mounts no further chunk.
    expect(ids(mounting.of(all, null).mounted)).toEqual([98, 99, 100])
  })

  it('mounts a page of history one chunk at a time', () => {
    const mounting = new MountedChunks()
    mounting.of(chunks(8, 9), null)
    const all = chunks(5, 9)
    expect(ids(mounting.of(all, null).mounted)).toEqual([8, 9])
    const seen = []
    for (let more = true; more; ) {
      mounting.mountMore(all)
      const { mounted, hasMore } = mounting.of(all, null)
      seen.push(mounted.length)
      more = hasMore
    }
    expect(seen).toEqual([3, 4, 5])
  })

  it('mounts new messages immediately', () => {
    const mounting = new MountedChunks()
    mounting.of(chunks(1, 9), null)
    expect(ids(mounting.of(chunks(1, 12), null).mounted)).toEqual([8, 9, 10, 11, 12])
  })

  it('mounts all chunks from the one where the list opens or jumps to, and one above', () => {
    const mounting = new MountedChunks()
    expect(ids(mounting.of(chunks(1, 9), 5).mounted)).toEqual([4, 5, 6, 7, 8, 9])
    expect(ids(mounting.of(chunks(1, 9), 2).mounted)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(mounting.of(chunks(1, 9), 1).hasMore).toBe(false)
  })

  it('starts over after a jump to another part of the history', () => {
    const mounting = new MountedChunks()
    mounting.of(chunks(90, 99), 90)
    expect(ids(mounting.of(chunks(10, 20), 12).mounted)).toEqual([11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
    expect(ids(mounting.of(chunks(90, 99), null).mounted)).toEqual([98, 99])
  })

  it('mounts all chunks of a short list', () => {
    const mounting = new MountedChunks()
    expect(mounting.of([], null)).toEqual({ mounted: [], hasMore: false })
    expect(mounting.of(chunks(3, 3), null)).toEqual({ mounted: chunks(3, 3), hasMore: false })
  })
})
