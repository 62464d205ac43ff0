// node tests/ui/firefox.mjs: the core of the chat in Firefox, with both people in one window. The
// browser is driven by WebDriver BiDi, so the helpers of the other checks do not fit.
import { strict as assert } from 'node:assert'
import { launchFirefox } from '../browser/browsers.mjs'
import { PATIENCE_MS, startServer } from './harness.mjs'

const server = await startServer()
const browser = await launchFirefox()
const page = await browser.newPage()
await page.setViewport({ width: 1280, height: 800 })
page.setDefaultTimeout(PATIENCE_MS)
const problems = []
page.on('pageerror', (error) => problems.push(error.message))

const pane = (name) => `[data-person="${name}"]`
/** Waits until a row of this pane contains the text, and the row something that matches. */
const shows = (name, text, inside = '*') =>
  page.waitForFunction(
    (selector, wanted, match) =>
      [...document.querySelectorAll(`${selector} [data-slot="message-row"]`)].some(
        (row) => row.textContent.includes(wanted) && row.querySelector(match),
      ),
    { polling: 50 },
    pane(name),
    text,
    inside,
  )
const gone = (name, text) =>
  page.waitForFunction(
    (selector, wanted) => !document.querySelector(`${selector} [data-slot="rows"]`)?.textContent.includes(wanted),
    { polling: 50 },
    pane(name),
    text,
  )
const focus = (name, slot) => page.$eval(`${pane(name)} ${slot}`, (element) => element.focus())
const write = async (name, text) => {
  await focus(name, '[data-slot="field"]')
  await page.keyboard.type(text)
  await page.keyboard.press('Enter')
}
const focusRow = (name, text) =>
  page.$$eval(
    `${pane(name)} [data-slot="message-row"]`,
    (rows, wanted) => rows.findLast((row) => row.textContent.includes(wanted)).focus(),
    text,
  )

const checks = {
  async '21 a person is found by keyboard'() {
    await page.goto(`${server.url}/demo/?as=ana,ben`)
    await page.waitForSelector(`${pane('ana')} [data-slot="new-message"]`)
    await page.click(`${pane('ana')} [data-slot="new-message"]`)
    await page.waitForSelector('[role="combobox"]')
    await page.keyboard.type('ben')
    await page.waitForSelector('[role="option"] mark')
    await page.keyboard.press('Enter')
    await page.waitForSelector(`${pane('ana')} [data-slot="field"]`)
  },
  async '1 a message arrives'() {
    await write('ana', 'hello from Firefox')
    await page.waitForSelector(`${pane('ben')} [data-slot="conversation-link"]`)
    await page.click(`${pane('ben')} [data-slot="conversation-link"]`)
    await shows('ben', 'hello from Firefox')
    await page.waitForSelector(`${pane('ben')} [data-slot="field"]`)
  },
  async '2 the tick becomes filled'() {
    await shows('ana', 'hello from Firefox', '[data-state="read"]')
  },
  async '18 typing shows, and ends with the message'() {
    await focus('ben', '[data-slot="field"]')
    await page.keyboard.type('an answer')
    await page.waitForSelector(`${pane('ana')} [data-slot="typing-indicator"][data-visible]`)
    await page.keyboard.press('Enter')
    await shows('ana', 'an answer')
    await page.waitForSelector(`${pane('ana')} [data-slot="typing-indicator"]:not([data-visible])`)
  },
  async '3 twenty messages keep their order'() {
    for (let i = 1; i <= 20; i++) await write('ana', `quick ${i}.`)
    await page.waitForFunction(
      (selector) => document.querySelector(`${selector} [data-slot="rows"]`).textContent.includes('quick 20.'),
      { polling: 50, timeout: 40_000 },
      pane('ben'),
    )
    const order = await page.$$eval(`${pane('ben')} .rpt-text`, (all) =>
      all.map((one) => one.firstChild.textContent).filter((text) => text.startsWith('quick ')),
    )
    assert.deepEqual(
      order,
      Array.from({ length: 20 }, (_, i) => `quick ${i + 1}.`),
    )
  },
  async '25 a reaction by keyboard appears on both sides'() {
    await focusRow('ben', 'quick 20.')
    await page.keyboard.type('+')
    await page.waitForSelector('[data-slot="quick-reactions"] [role="menuitemcheckbox"]')
    await page.keyboard.press('Enter')
    for (const name of ['ana', 'ben']) await shows(name, 'quick 20.', '.rpt-reaction')
  },
  async '23 an edit appears on both sides'() {
    await write('ana', 'first wording')
    await shows('ben', 'first wording')
    await focus('ana', '[data-slot="field"]')
    await page.keyboard.press('ArrowUp')
    await page.waitForSelector(`${pane('ana')} [data-slot="strip"]`)
    await page.keyboard.type(', edited')
    await page.keyboard.press('Enter')
    await shows('ben', 'first wording, edited', '.rpt-edited')
  },
  async '24 a deletion appears on both sides'() {
    await focusRow('ana', 'first wording, edited')
    await page.keyboard.press('Delete')
    await page.waitForSelector('dialog[open]')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    for (const name of ['ana', 'ben']) await gone(name, 'first wording')
  },
  async '10 new messages leave a reader in place'() {
    // Tall messages from the other side, so that there is something to scroll.
    for (let i = 1; i <= 3; i++)
      await server
        .user('ben')
        .send(await server.user('ben').conversationWith('ana'), `tall ${i} ${'word '.repeat(300)}`)
    await shows('ana', 'tall 3')
    const settle = () =>
      page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))
    await page.$eval(`${pane('ana')} [data-slot="scroller"]`, (scroller) => {
      scroller.scrollTop = -900
    })
    await settle()
    const top = () =>
      page.$$eval(
        `${pane('ana')} [data-slot="message-row"]`,
        (rows) => rows.find((row) => row.textContent.includes('tall 2')).getBoundingClientRect().top,
      )
    const before = await top()
    for (let i = 1; i <= 5; i++) await write('ben', `news ${i}.`)
    await page.waitForFunction(
      (selector) => document.querySelector(`${selector} [data-slot="pill"]`)?.textContent === '5 new messages',
      { polling: 50 },
      pane('ana'),
    )
    await settle()
    assert.ok(Math.abs((await top()) - before) <= 1, `moved by ${(await top()) - before} px`)
  },
}

let passed = 0
let failed = 0
try {
  for (const [title, check] of Object.entries(checks)) {
    const from = Date.now()
    try {
      await check()
      passed++
      console.log(`ok   Firefox: ${title} (${Date.now() - from} ms)`)
    } catch (error) {
      failed++
      console.log(
        `FAIL Firefox: ${title}: ${String(error.stack ?? error)
          .split('\n')
          .slice(0, 6)
          .join('\n     ')}`,
      )
    }
  }
  if (problems.length > 0) {
    failed++
    console.log(`FAIL Firefox: errors in the page: ${problems.join('; ')}`)
  }
} finally {
  await browser.close()
  await server.close()
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
