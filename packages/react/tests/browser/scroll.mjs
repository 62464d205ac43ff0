// Checks the bottom-anchored scroller in Chromium and Firefox. Positions may differ by one pixel at
// most.
import { strict as assert } from 'node:assert'
import { mkdtemp, copyFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { openChromium, openFirefox } from './browsers.mjs'

const here = import.meta.dirname
const folder = await mkdtemp(join(tmpdir(), 'rapport-scroll-'))
await build({
  entryPoints: [join(here, 'scroll-page.ts')],
  bundle: true,
  format: 'iife',
  outfile: join(folder, 'scroll-page.js'),
})
await copyFile(join(here, 'scroll-page.html'), join(folder, 'scroll-page.html'))
const address = pathToFileURL(join(folder, 'scroll-page.html')).href

/** Runs in the page. Resolves after two frames, when layout and observers have run. */
const settle = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
const topOf = (key) => document.querySelector(`[data-key="${key}"]`)?.getBoundingClientRect().top ?? null
const middleKey = () => document.elementFromPoint(200, 300).closest('[data-key]').dataset.key
const bottomRow = () => {
  const rows = [...document.querySelectorAll('[data-key]')].filter(
    (row) => row.getBoundingClientRect().top < document.getElementById('scroller').getBoundingClientRect().bottom,
  )
  const row = rows.at(-1)
  return {
    key: row.dataset.key,
    bottom: row.getBoundingClientRect().bottom - document.getElementById('scroller').getBoundingClientRect().bottom,
  }
}

const near = (a, b, what) => assert.ok(Math.abs(a - b) <= 1, `${what}: ${a} and ${b}`)

const checks = {
  async 'opens at the bottom'(page) {
    assert.equal(await page.evaluate(() => document.getElementById('scroller').scrollTop), 0)
    near(
      await page.evaluate(() => document.querySelector('[data-key="9999"]').getBoundingClientRect().bottom),
      600,
      'last row',
    )
  },
  async 'new messages at the bottom keep the end in view'(page) {
    await page.evaluate(() => window.append(3))
    await page.evaluate(settle)
    near(
      await page.evaluate(() => document.querySelector('[data-key="10002"]').getBoundingClientRect().bottom),
      600,
      'last row',
    )
  },
  async 'scrolling through 10,000 messages with 200 prepends moves no row'(page) {
    // The wheel is used instead of `scrollTop`, so that prepends happen while the engine scrolls.
    await page.moveTo(200, 300)
    const writes = await page.evaluate(() => window.writes())
    let first = 9_900
    let worst = 0
    let guard = 0
    while (first > 0) {
      assert.ok(guard++ < 4000, `still at ${first}`)
      await page.wheel(-2400)
      await page.evaluate(settle)
      const moved = await page.evaluate(async (settleText) => {
        const settle = new Function(`return (${settleText})()`)
        const scroller = document.getElementById('scroller')
        const { fromTop, viewport } = window.keeper.position()
        if (fromTop > viewport * 2) return null
        // After a jump of four viewports, the chunk may still be an empty box for a frame.
        let point = null
        while (!(point = document.elementFromPoint(200, 300).closest('[data-key]'))) await settle()
        const { key } = point.dataset
        const before = document.querySelector(`[data-key="${key}"]`).getBoundingClientRect().top + scroller.scrollTop
        const first = window.prepend(60)
        await settle()
        const after = document.querySelector(`[data-key="${key}"]`).getBoundingClientRect().top + scroller.scrollTop
        return { first, error: Math.abs(after - before) }
      }, settle.toString())
      if (moved) {
        first = moved.first
        worst = Math.max(worst, moved.error)
      }
    }
    assert.ok(worst <= 0.5, `position error ${worst} px`)
    assert.equal(await page.evaluate(() => window.writes()), writes, 'writes of scrollTop while scrolling up')
    const inDom = await page.evaluate(() => document.querySelectorAll('[data-key]').length)
    assert.ok(inDom <= 400, `${inDom} rows in the document`)
  },
  async 'new messages below do not move the reader'(page) {
    await page.evaluate(() => {
      document.getElementById('scroller').scrollTop = -60_000
    })
    await page.evaluate(settle)
    const key = await page.evaluate(middleKey)
    const before = await page.evaluate(topOf, key)
    for (let i = 0; i < 10; i++) await page.evaluate(() => window.append(1))
    await page.evaluate(settle)
    near(await page.evaluate(topOf, key), before, 'row')
  },
  async 'a late image above or below does not move the reader'(page) {
    const key = Number(await page.evaluate(middleKey))
    const before = await page.evaluate(topOf, String(key))
    for (const other of [key - 12, key + 12]) {
      await page.evaluate((k) => window.grow(String(k)), other)
      await page.evaluate(settle)
      near(await page.evaluate(topOf, String(key)), before, `row after ${other} grew`)
    }
  },
  async 'a narrower list keeps the lowest row in view'(page) {
    const { key, bottom } = await page.evaluate(bottomRow)
    await page.evaluate(() => {
      document.getElementById('scroller').style.width = '300px'
    })
    await page.evaluate(settle)
    const after = await page.evaluate(
      (k) =>
        document.querySelector(`[data-key="${k}"]`).getBoundingClientRect().bottom -
        document.getElementById('scroller').getBoundingClientRect().bottom,
      key,
    )
    near(after, bottom, 'lowest row')
  },
  async 'a shorter list keeps the lowest row in view'(page) {
    const { key, bottom } = await page.evaluate(bottomRow)
    await page.evaluate(() => {
      document.getElementById('scroller').style.height = '300px'
    })
    await page.evaluate(settle)
    const after = await page.evaluate(
      (k) =>
        document.querySelector(`[data-key="${k}"]`).getBoundingClientRect().bottom -
        document.getElementById('scroller').getBoundingClientRect().bottom,
      key,
    )
    near(after, bottom, 'lowest row')
  },
}

let failed = 0
let passed = 0
for (const [name, open] of [
  ['Chromium', openChromium],
  ['Firefox', openFirefox],
]) {
  if (process.argv[2] && process.argv[2] !== name.toLowerCase()) continue
  const page = await open(address)
  try {
    for (const [title, check] of Object.entries(checks)) {
      const from = Date.now()
      try {
        await check(page)
        passed++
        console.log(`ok   ${name}: ${title} (${Date.now() - from} ms)`)
      } catch (error) {
        failed++
        console.log(`FAIL ${name}: ${title}: ${error.message}`)
      }
    }
  } finally {
    await page.close()
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
