/**
 * Preserves the reader's position in a bottom-anchored scroller.
 *
 * The scroller is `display: flex; flex-direction: column-reverse` with one child. Its scroll origin
 * is the bottom, so growth above the reader moves nothing, and a reader at the bottom stays there.
 * Only growth below a reader who has scrolled up moves the content. One write of `scrollTop`, in
 * the frame in which the growth is laid out, moves it back.
 *
 * `scrollTop` is 0 at the bottom and negative above it.
 */

/** Within this distance from the bottom, an incoming message scrolls into view. */
export const NEAR_BOTTOM_PX = 80

/** Differences below a pixel come from rounding to device pixels and are not corrected. */
const TOLERANCE_PX = 1

interface Anchor {
  element: Element
  /** Bottom edge of the element, relative to the bottom edge of the scroller. */
  offset: number
  scrollTop: number
}

export interface ScrollPosition {
  fromBottom: number
  fromTop: number
  viewport: number
}

export class ScrollKeeper {
  private anchor: Anchor | null = null
  private readonly observer: ResizeObserver
  private readonly listeners = new Set<() => void>()

  constructor(
    private readonly scroller: HTMLElement,
    /** The scroller's only child, whose size is observed. */
    private readonly content: HTMLElement,
    /** The element inside `content` whose children are the chunks of rows. */
    private readonly chunks: HTMLElement = content,
  ) {
    scroller.addEventListener('scroll', this.reconcile, { passive: true })
    // The observer runs after layout and before paint, so a correction is never visible as a jump.
    this.observer = new ResizeObserver(this.reconcile)
    this.observer.observe(this.content)
    this.observer.observe(scroller)
    this.pickAnchor()
  }

  stop(): void {
    this.scroller.removeEventListener('scroll', this.reconcile)
    this.observer.disconnect()
    this.listeners.clear()
  }

  /** Calls `listener` after each scroll or change of size, once positions have been corrected. */
  onMove(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  position(): ScrollPosition {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller
    const fromBottom = Math.max(0, -scrollTop)
    return { fromBottom, fromTop: Math.max(0, scrollHeight - clientHeight - fromBottom), viewport: clientHeight }
  }

  isNearBottom(): boolean {
    return -this.scroller.scrollTop <= NEAR_BOTTOM_PX
  }

  toBottom(smooth = false): void {
    this.scroller.scrollTo({ top: 0, behavior: smooth ? 'smooth' : 'instant' })
    this.pickAnchor()
  }

  /**
   * Goes to the bottom after rows were added there. A scroller at the bottom stays there by itself,
   * and scrolling it would lay out the page once more than needed.
   */
  followToBottom(): void {
    if (!this.anchor || this.anchor.scrollTop < -TOLERANCE_PX) this.toBottom()
  }

  /**
   * Scrolls so that the top of `element` is at `share` of the viewport's height, or higher if its
   * end would otherwise be out of view.
   */
  place(element: Element, share: number): void {
    const port = this.scroller.getBoundingClientRect()
    const box = element.getBoundingClientRect()
    const room = Math.max(0, port.height - box.height)
    const wanted = port.top + Math.min(port.height * share, room)
    this.scroller.scrollTop += box.top - wanted
    this.pickAnchor()
  }

  /** Whether all of `element` is in view. */
  isInView(element: Element): boolean {
    const port = this.scroller.getBoundingClientRect()
    const box = element.getBoundingClientRect()
    return box.top >= port.top && box.bottom <= port.bottom
  }

  /** Scrolls as little as needed to make `element` visible, with a margin. */
  reveal(element: Element, margin = 8): void {
    const port = this.scroller.getBoundingClientRect()
    const box = element.getBoundingClientRect()
    if (box.top < port.top + margin) this.scroller.scrollTop += box.top - port.top - margin
    else if (box.bottom > port.bottom - margin) this.scroller.scrollTop += box.bottom - port.bottom + margin
    this.pickAnchor()
  }

  /** Returns the `seq` of the lowest row in view, or null if it has none. */
  lowestSeq(): number | null {
    const seq = this.anchor?.element.getAttribute('data-seq')
    return seq == null ? null : Number(seq)
  }

  /** Returns the highest row in view. */
  topRow(): Element | null {
    const edge = this.scroller.getBoundingClientRect().top + 1
    const chunk = lastStartingAbove(this.chunks.children, edge) ?? this.chunks.firstElementChild
    return chunk && (lastStartingAbove(chunk.querySelectorAll('[data-key]'), edge) ?? chunk.querySelector('[data-key]'))
  }

  /** Returns the day of the highest row in view. Null if the separator of that day is in view too. */
  topDay(): string | null {
    const row = this.topRow()
    let before = row?.previousElementSibling
    if (before?.matches('[data-slot="unread-line"]')) before = before.previousElementSibling
    const edge = this.scroller.getBoundingClientRect().top
    if (before?.matches('[data-slot="day"]') && before.getBoundingClientRect().bottom > edge) return null
    return row?.getAttribute('data-day') || null
  }

  /**
   * Returns the position for `restore`: the lowest row in view and the offset of its lower edge.
   * Returns null near the bottom.
   */
  remember(): { key: string; offset: number } | null {
    if (this.isNearBottom() || !this.anchor) return null
    const key = this.anchor.element.getAttribute('data-key')
    return key === null ? null : { key, offset: this.anchor.offset }
  }

  restore(element: Element, offset: number): void {
    const port = this.scroller.getBoundingClientRect()
    this.scroller.scrollTop += element.getBoundingClientRect().bottom - port.bottom - offset
    this.pickAnchor()
  }

  private readonly reconcile = (): void => {
    const { anchor, scroller } = this
    // At the bottom, the browser itself keeps the end in view.
    if (anchor && scroller.scrollTop < -TOLERANCE_PX && anchor.element.isConnected) {
      // If the list scrolls between a change of size and the observer's run, the row has moved for
      // both reasons. The distance that the list has scrolled is subtracted; the rest is growth.
      const expected = anchor.offset - (scroller.scrollTop - anchor.scrollTop)
      const growth = this.offsetOf(anchor.element) - expected
      if (Math.abs(growth) >= TOLERANCE_PX) scroller.scrollTop += growth
    }
    this.pickAnchor()
    for (const listener of this.listeners) listener()
  }

  private offsetOf(element: Element): number {
    return element.getBoundingClientRect().bottom - this.scroller.getBoundingClientRect().bottom
  }

  /** Chooses the lowest row in view as the anchor. */
  private pickAnchor(): void {
    const element = this.lowestRowInView()
    this.anchor = element && { element, offset: this.offsetOf(element), scrollTop: this.scroller.scrollTop }
  }

  private lowestRowInView(): Element | null {
    // Measuring would lay out the whole page, which is not necessary for a list without rows.
    if (this.chunks.childElementCount === 0) return null
    const bottom = this.scroller.getBoundingClientRect().bottom
    const chunk = lastStartingAbove(this.chunks.children, bottom)
    if (!chunk) return null
    return lastStartingAbove(chunk.querySelectorAll('[data-key]'), bottom) ?? chunk
  }
}

/** Returns the last element whose top is above `edge`. The elements are ordered top to bottom. */
function lastStartingAbove(elements: ArrayLike<Element>, edge: number): Element | null {
  let low = 0
  let high = elements.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (elements[middle]!.getBoundingClientRect().top < edge) low = middle + 1
    else high = middle
  }
  return low > 0 ? elements[low - 1]! : null
}
