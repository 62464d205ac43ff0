// The same small set of actions for pages of Playwright (Chromium) and Puppeteer (Firefox).
import { PATIENCE_MS } from './harness.mjs'

/** `scope` is the selector of one person's pane, if the page shows two. */
export function drive(page, { scope = '' } = {}) {
  const isPlaywright = typeof page.locator === 'function' && typeof page.context === 'function'
  const within = (selector) => `${scope} ${selector}`.trim()
  const until = (check, argument, timeout = PATIENCE_MS) =>
    isPlaywright
      ? page.waitForFunction(check, argument, { timeout, polling: 50 })
      : page.waitForFunction(check, { timeout, polling: 50 }, argument)
  const field = within('[data-slot="field"]')

  const driver = {
    page,
    until,
    within,
    evaluate: (run, argument) => page.evaluate(run, argument),
    /** Waits until a row contains the text and an element that matches `inside`. */
    shows: (text, inside = '*', timeout) =>
      until(
        ([selector, wanted, match]) =>
          [...document.querySelectorAll(selector)].some(
            (row) => row.textContent.includes(wanted) && row.querySelector(match) !== null,
          ),
        [within('[data-slot="message-row"]'), text, inside],
        timeout,
      ),
    appears: (selector, timeout) => until((one) => document.querySelector(one) !== null, within(selector), timeout),
    disappears: (selector, timeout) => until((one) => document.querySelector(one) === null, within(selector), timeout),
    /** Waits until a matching element contains the text. */
    reads: (selector, text, timeout) =>
      until(
        ([one, wanted]) => [...document.querySelectorAll(one)].some((element) => element.textContent.includes(wanted)),
        [within(selector), text],
        timeout,
      ),
    focus: (selector) => page.evaluate((one) => document.querySelector(one).focus(), within(selector)),
    draft: () => page.evaluate((one) => document.querySelector(one).value, field),
    /** Focuses the composer and types into it. */
    async type(text) {
      await driver.focus('[data-slot="field"]')
      await page.keyboard.type(text)
    },
    async send(text) {
      await driver.type(text)
      await page.keyboard.press('Enter')
    },
    texts: () =>
      page.evaluate(
        (selector) =>
          [...document.querySelectorAll(selector)].map((one) =>
            [...one.childNodes]
              .filter((node) => !(node instanceof Element && node.matches('[data-slot="meta"]')))
              .map((node) => node.textContent)
              .join(''),
          ),
        within('[data-slot="message-row"] .rpt-text'),
      ),
  }
  return driver
}
