import { CHUNK_ROWS, type Chunk } from './rows'

/** At least this many rows are mounted first. They fill most screens; the next frame adds more. */
const FIRST_ROWS = 15

/**
 * Decides which of the loaded chunks are mounted. A page of history, or a conversation that was
 * read for long and is opened again, would otherwise render hundreds of rows in one task. The
 * newest chunks come first; those above follow one at a time, as the reader comes near. They are
 * above the reader, so that they move nothing.
 *
 * A chunk that was mounted once stays mounted: it becomes a box of its height when it is far away.
 */
export class MountedChunks {
  private first = Infinity
  private last = -Infinity

  /** `needed`: chunks from this one on have to be mounted, because the list opens or jumps there. */
  of(chunks: readonly Chunk[], needed: number | null): { mounted: readonly Chunk[]; hasMore: boolean } {
    const oldest = chunks[0]
    const newest = chunks.at(-1)
    if (!oldest || !newest) return { mounted: chunks, hasMore: false }
    // Another part of the history has nothing in common with what was mounted.
    if (newest.id < this.first || oldest.id > this.last) this.first = Infinity
    if (this.first === Infinity) this.first = firstOf(chunks)
    this.first = Math.min(this.first, needed === null ? Infinity : needed - 1)
    this.last = newest.id
    const from = chunks.findIndex(({ id }) => id >= this.first)
    return { mounted: from === 0 ? chunks : chunks.slice(from), hasMore: from > 0 }
  }

  /** Mounts one more chunk at the next `of`. */
  mountMore(chunks: readonly Chunk[]): void {
    const above = chunks.findLast(({ id }) => id < this.first)
    if (above) this.first = above.id
  }
}

/** From which chunk on there are enough rows. */
function firstOf(chunks: readonly Chunk[]): number {
  let rows = 0
  return (chunks.findLast((chunk) => (rows += chunk.rows.length) >= FIRST_ROWS) ?? chunks[0])?.id ?? Infinity
}

/** The chunk that contains a stored message. */
export const chunkOf = (seq: number): number => Math.floor(seq / CHUNK_ROWS)
