// The loaded parts of a conversation, as ranges of `seq`.

export interface Range {
  /** The first `seq`; 0 if nothing is older. */
  readonly from: number
  /** The last `seq`; `Infinity` if nothing is newer, so that new messages belong to the range. */
  readonly to: number
}

/** Adds a range. Ranges that overlap or touch become one. The result is sorted. */
export function addRange(ranges: readonly Range[], added: Range): readonly Range[] {
  let { from, to } = added
  const apart: Range[] = []
  for (const range of ranges) {
    if (range.to + 1 < from || range.from > to + 1) apart.push(range)
    else {
      from = Math.min(from, range.from)
      to = Math.max(to, range.to)
    }
  }
  return [...apart, { from, to }].sort((a, b) => a.from - b.from)
}
