// Checks that are the same in Chromium (Playwright) and in Firefox (Puppeteer). The caller passes
// what differs between the two.
import { strict as assert } from 'node:assert'
import { drive } from './driver.mjs'
import { settle } from './harness.mjs'

/**
 * Scrolls through the 10,000 messages of the gallery. `wheel` scrolls by a number of pixels. While
 * a page is loaded, the row under the pointer must not move. A chunk must keep its distance from
 * the end of the list from the moment when it is mounted.
 */
export async function throughHistory(page, wheel) {
  const pointer = await page.evaluate(() => {
    const { left, top } = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
    return { x: left + 60, y: top + 300 }
  })
  await page.mouse.move(pointer.x, pointer.y)
  await page.evaluate(({ x, y }) => {
    const scroller = document.querySelector('[data-slot="scroller"]')
    window.worst = 0
    window.pages = 0
    const one = window.gallery.client.conversation('20000000-0000-4000-8000-00000000000b')
    const load = one.loadOlder.bind(one)
    one.loadOlder = async () => {
      const row = document.elementFromPoint(x, y)?.closest('[data-key]')
      // The coordinates are those of the content, so that the scrolling itself does not count.
      const place = () => row.getBoundingClientRect().top + scroller.scrollTop
      const before = row && place()
      await load()
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
      if (row?.isConnected) window.worst = Math.max(window.worst, Math.abs(place() - before))
      window.pages++
    }
  }, pointer)
  const where = () =>
    page.evaluate(() => {
      const { scrollTop } = document.querySelector('[data-slot="scroller"]')
      window.places ??= new Map()
      for (const chunk of document.querySelectorAll('[data-chunk]')) {
        // The coordinates count from the end of the list, like those of the scroller.
        const place = chunk.getBoundingClientRect().bottom + scrollTop
        const first = window.places.get(chunk.dataset.chunk) ?? place
        window.places.set(chunk.dataset.chunk, first)
        window.shifted = Math.max(window.shifted ?? 0, Math.abs(place - first))
      }
      return { top: scrollTop, hasBeginning: document.querySelector('[data-slot="beginning"]') !== null }
    })
  let last = null
  for (;;) {
    await wheel(-6000)
    await settle(page)
    const { top, hasBeginning } = await where()
    if (hasBeginning && top === last) break
    last = top
  }
  const { worst, shifted, pages, rows } = await page.evaluate(() => ({
    worst: window.worst,
    shifted: window.shifted,
    pages: window.pages,
    rows: document.querySelectorAll('[data-slot="message-row"]').length,
  }))
  assert.ok(pages >= 190, `${pages} pages`)
  assert.ok(worst <= 1, `worst position error ${worst} px`)
  assert.ok(shifted <= 1, `a chunk was shifted by ${shifted} px`)
  assert.ok(rows <= 400, `${rows} rows in the document`)
}

/**
 * Runs before the page's scripts. Replaces the badge of an installed app, which neither browser has
 * without a desktop.
 */
export const fakeAppBadge = () => {
  Object.assign(navigator, {
    setAppBadge: async (count) => void (window.appBadge = count),
    clearAppBadge: async () => void (window.appBadge = 0),
  })
}

/** The maximum time between the two devices. */
const READ_ELSEWHERE_MS = 1000

/**
 * Two devices of Ana show her list, with `fakeAppBadge`. A message arrives, and `read` opens the
 * conversation on one of them. Then list, top bar, title and badge of both must show no count.
 */
export async function readElsewhere({ server, here, there, read }) {
  const devices = [drive(here), drive(there)]
  for (const device of devices) {
    await device.appears('[data-slot="conversation-link"]')
    await device.disappears('[data-slot="connection-banner"]')
    await device.disappears('[data-slot="unread-badge"]')
  }
  const conversation = await server.user('ana').conversationWith('ben')
  await server.user('ben').send(conversation, 'badge 17')
  for (const device of devices) {
    await device.appears('[data-slot="conversation"] [data-slot="unread-badge"][data-text="1"]')
    await device.appears('[data-slot="quick-access"] [data-slot="unread-badge"][data-text="1"]')
    await device.until(() => document.title === '(1) Rapport' && window.appBadge === 1)
    // Timers of a window in the background are slow; an observer is not.
    await device.evaluate(() => {
      const look = () => {
        if (document.querySelector('[data-slot="unread-badge"]')) return
        if (document.title === 'Rapport' && window.appBadge === 0) window.clearedAt ??= Date.now()
      }
      const everything = { subtree: true, childList: true, characterData: true, attributes: true }
      new MutationObserver(look).observe(document, everything)
    })
  }
  await read()
  const times = []
  for (const device of devices) {
    await device.until(() => window.clearedAt !== undefined)
    times.push(await device.evaluate(() => window.clearedAt))
  }
  const [a, b] = times
  assert.ok(Math.abs(a - b) <= READ_ELSEWHERE_MS, `${Math.abs(a - b)} ms apart`)
}

/** Returns the pixels between the starts of an item's name and preview in a mirrored list. */
export const startsApart = (page) =>
  page.evaluate(() => {
    const item = [...document.querySelectorAll('[data-slot="conversation-link"]')].find((link) =>
      link.textContent.includes('Build 4812 is green'),
    )
    const endOf = (selector) => {
      const range = document.createRange()
      range.selectNodeContents(item.querySelector(selector))
      return range.getBoundingClientRect().right
    }
    return Math.abs(endOf('.rpt-item-name') - endOf('.rpt-item-preview'))
  })

/** Returns the directions of the empty search and composer, and thereby of their placeholders. */
export const directionsOfFields = (page) =>
  page.evaluate(() =>
    ['search', 'field'].map((slot) => getComputedStyle(document.querySelector(`[data-slot="${slot}"]`)).direction),
  )
