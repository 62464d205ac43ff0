import { CHUNK_ROWS, type Chunk } from './rows'

/** The minimum number of rows to mount first. They fill most screens; the next frame adds more. */
const FIRST_ROWS = 15

/**
 * Decides which of the loaded chunks are mounted. If all were mounted at once, a page of history,
 * or reopening a conversation with much loaded history, would render hundreds of rows in one task.
 * The newest chunks are mounted first. Older chunks follow one at a time, as the reader scrolls
 * near them. They are above the reader, so mounting them moves nothing.
 *
 * A mounted chunk stays mounted. When it is far away, it becomes an empty box of the same height.
 */
export class MountedChunks {
  private first = Infinity
  private last = -Infinity

  /**
   * `needed`: the id of the chunk to which the list opens or jumps. This chunk, the one before it
   * and all newer ones are mounted.
   */
  of(chunks: readonly Chunk[], needed: number | null): { mounted: readonly Chunk[]; hasMore: boolean } {
    const oldest = chunks[0]
    const newest = chunks.at(-1)
    if (!oldest || !newest) return { mounted: chunks, hasMore: false }
    // After a jump to a separate part of the history, no loaded chunk was mounted before.
    if (newest.id < this.first || oldest.id > this.last) this.first = Infinity
    if (this.first === Infinity) this.first = firstOf(chunks)
    this.first = Math.min(this.first, needed === null ? Infinity : needed - 1)
    this.last = newest.id
    const from = chunks.findIndex(({ id }) => id >= this.first)
    return { mounted: from === 0 ? chunks : chunks.slice(from), hasMore: from > 0 }
  }

  /** Lets the next call of `of` mount one more chunk. */
  mountMore(chunks: readonly Chunk[]): void {
    const above = chunks.findLast(({ id }) => id < this.first)
    if (above) this.first = above.id
  }
}

/** Returns the id of the newest chunk that, together with the later ones, has enough rows. */
function firstOf(chunks: readonly Chunk[]): number {
  let rows = 0
  return (chunks.findLast((chunk) => (rows += chunk.rows.length) >= FIRST_ROWS) ?? chunks[0])?.id ?? Infinity
}

/** Returns the id of the chunk that contains a stored message. */
export const chunkOf = (seq: number): number => Math.floor(seq / CHUNK_ROWS)
