/**
 * A page with the scroller but without React. It starts with the newest 100 of 10,000 rows, in
 * chunks of 20.
 */
import { ScrollKeeper } from '../../src/list/scroll-keeper'

const scroller = document.getElementById('scroller') as HTMLElement
const rows = document.getElementById('rows') as HTMLElement
const CHUNK = 20
let first = 9_900

function row(n: number): HTMLElement {
  const element = document.createElement('div')
  element.className = 'row'
  element.dataset.key = String(n)
  element.textContent = `${n} ` + 'word '.repeat((n * 7919) % 60)
  return element
}

const boxes = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const chunk = entry.target as HTMLElement
      const boxed = chunk.dataset.boxed === 'true'
      if (entry.isIntersecting && boxed) {
        chunk.dataset.boxed = 'false'
        chunk.style.height = ''
        chunk.replaceChildren(...rowsOf(Number(chunk.dataset.chunk)))
      } else if (!entry.isIntersecting && !boxed && chunk.dataset.chunk) {
        chunk.style.height = `${entry.boundingClientRect.height}px`
        chunk.dataset.boxed = 'true'
        chunk.replaceChildren()
      }
    }
  },
  { root: scroller, rootMargin: '200% 0px' },
)

function rowsOf(chunk: number): HTMLElement[] {
  return Array.from({ length: CHUNK }, (_, i) => row(chunk * CHUNK + i))
}

function addChunk(number: number, where: 'top' | 'bottom'): void {
  const chunk = document.createElement('div')
  chunk.dataset.chunk = String(number)
  chunk.append(...rowsOf(number))
  if (where === 'top') rows.prepend(chunk)
  else rows.append(chunk)
  boxes.observe(chunk)
}

for (let n = first / CHUNK; n < 500; n++) addChunk(n, 'bottom')
const keeper = new ScrollKeeper(scroller, rows)
let next = 10_000

// Counts writes of `scrollTop` by scripts. Scrolling through history must not cause any.
let writes = 0
const native = Object.getOwnPropertyDescriptor(Element.prototype, 'scrollTop') as PropertyDescriptor
Object.defineProperty(scroller, 'scrollTop', {
  get: () => native.get?.call(scroller) as number,
  set(value: number) {
    writes++
    native.set?.call(scroller, value)
  },
})

Object.assign(window, {
  keeper,
  writes: () => writes,
  prepend(count: number) {
    for (let i = 0; i < count / CHUNK && first > 0; i++) {
      first -= CHUNK
      addChunk(first / CHUNK, 'top')
    }
    return first
  },
  append(count: number) {
    const chunk = document.createElement('div')
    for (let i = 0; i < count; i++) chunk.append(row(next++))
    rows.append(chunk)
  },
  /** Simulates an image that loads in the row, which grows by 300 px. */
  grow(key: string) {
    const element = rows.querySelector<HTMLElement>(`[data-key="${key}"]`)
    if (element) element.style.paddingBottom = '300px'
  },
})
