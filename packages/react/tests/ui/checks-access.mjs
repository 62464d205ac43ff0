// Checks of accessibility, languages and phones.
import { strict as assert } from 'node:assert'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { eventually, openWindow, settle } from './harness.mjs'
import { both, isLive } from './checks-messages.mjs'
import { withoutMouse } from './keyboard-runs.mjs'
import { directionsOfFields, startsApart } from './shared-runs.mjs'

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** Returns all violations that axe finds, as one line each. */
export async function violations(page, except = []) {
  // axe is not added as a script element, because the page's content security policy forbids
  // inline scripts.
  await page.evaluate(axe)
  return page.evaluate(async (rules) => {
    const { violations: found } = await window.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
      rules: Object.fromEntries(rules.map((rule) => [rule, { enabled: false }])),
    })
    return found.flatMap(({ id, nodes }) =>
      nodes.map(
        ({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary?.split('\n')[1]?.trim()}`,
      ),
    )
  }, except)
}

export const checks = {
  async '30 Arabic mirrors the layout'({ browser, server }) {
    const page = await browser.newPage({ viewport: { width: 1000, height: 760 } })
    await page.goto(`${server.url}/demo/gallery/?only=messenger&lang=ar`)
    await page.locator('[data-slot="conversation-link"]').first().click()
    await page.locator('[data-slot="message-row"]').last().waitFor()
    const { list, own, width } = await page.evaluate(() => {
      const box = (selector) => document.querySelector(selector).getBoundingClientRect()
      return {
        list: box('[data-slot="list-pane"]').left,
        own: box('[data-slot="message"][data-own]').left,
        width: innerWidth,
      }
    })
    assert.ok(list > width / 2, 'the list is on the right')
    assert.ok(own < width / 2, 'own messages are on the left')
    assert.deepEqual(await directionsOfFields(page), ['rtl', 'rtl'])
    assert.ok((await startsApart(page)) <= 2, 'the preview begins below the name')
    await page.close()
  },

  async '31 messages are written, found, changed and tidied without a mouse'({ browser, server }) {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
    await withoutMouse({ server }, { page, open: (query) => page.goto(`${server.url}/demo/${query}`) })
    await page.close()
  },

  async '32 a new message is announced once, and history is not'(t) {
    const { conversation, ana, close } = await both(t)
    await ana.page.evaluate(() => {
      window.said = []
      new MutationObserver(() => {
        const text = document.querySelector('[data-slot="announcer"]').textContent
        if (text) window.said.push(text)
      }).observe(document.querySelector('[data-slot="announcer"]'), {
        childList: true,
        characterData: true,
        subtree: true,
      })
    })
    await ana.wheel(-2000)
    await settle(ana.page)
    await t.server.user('ben').send(conversation, 'say this 32')
    await eventually(
      () => ana.page.evaluate(() => window.said.some((text) => text.includes('say this 32'))),
      'the announcement',
    )
    const said = await ana.page.evaluate(() => window.said)
    assert.deepEqual(
      said.filter((text) => text !== 'Sent'),
      ['Ben: say this 32'],
    )
    // Scrolls to the end first, because rows far from the viewport are not in the document.
    await ana.slot('pill').click()
    await ana.row('say this 32').waitFor()
    const label = await ana.row('say this 32').getAttribute('aria-label')
    assert.match(label, /^Ben Brandt, say this 32, \d/)
    await close()
  },

  async '33 axe finds nothing on the page and in the gallery, in both themes'(t) {
    const { ana, close } = await both(t)
    const found = []
    const look = async (page, what, except) => {
      // In the middle of an animation, colours may have too little contrast.
      await page.emulateMedia({ reducedMotion: 'reduce' })
      await settle(page)
      found.push(...(await violations(page, except)).map((one) => `${what}: ${one}`))
    }
    await look(ana.page, 'conversation')
    await ana.page.keyboard.press('Control+k')
    await ana.page.getByRole('combobox').waitFor()
    await look(ana.page, 'new message')
    await close()
    for (const theme of ['light', 'dark']) {
      const page = await t.browser.newPage({ viewport: { width: 1280, height: 900 } })
      await page.goto(`${t.server.url}/demo/?theme=${theme}`)
      await page.locator('.demo-chooser li').last().waitFor()
      await look(page, `chooser ${theme}`)
      for (const only of ['conversations', 'lists', 'composers', 'parts', 'messenger']) {
        await page.goto(`${t.server.url}/demo/gallery/?only=${only}&theme=${theme}`)
        await page.locator('.gallery-state, [data-slot="conversation-link"]').first().waitFor()
        await settle(page)
        // Unlike other pages, the gallery shows the same component many times.
        await look(page, `${only} ${theme}`, only === 'messenger' ? [] : ['heading-order', 'landmark-unique'])
      }
      await page.close()
    }
    assert.equal([...new Set(found)].join('\n'), '')
  },

  async '34 no animation with reduced motion, distinct states with forced colours, no sideways scrolling at 320 px'({
    browser,
    server,
  }) {
    const page = await browser.newPage({
      viewport: { width: 320, height: 568 },
      reducedMotion: 'reduce',
      forcedColors: 'active',
    })
    await page.goto(`${server.url}/demo/gallery/?only=states`)
    await page.locator('[data-slot="message-row"]').last().waitFor()
    await settle(page)
    const wide = await page.evaluate(
      () =>
        [document.documentElement, document.querySelector('[data-slot="scroller"]')].filter(
          (one) => one.scrollWidth > one.clientWidth,
        ).length,
    )
    assert.equal(wide, 0)
    const moving = await page.evaluate(
      () => document.getAnimations().filter((one) => one.playState === 'running').length,
    )
    assert.equal(moving, 0)
    const borders = await page
      .locator('[data-slot="bubble"]')
      .last()
      .evaluate((bubble) => getComputedStyle(bubble).borderTopWidth)
    assert.notEqual(borders, '0px')
    await page.close()
  },

  async '34 on a narrow screen, the actions of a short message cover no message'({ browser, server }) {
    const page = await browser.newPage({ viewport: { width: 480, height: 1400 } })
    await page.goto(`${server.url}/demo/gallery/?only=states`)
    await page.locator('[data-slot="message-row"]').last().waitFor()
    for (const text of ['Everyone agrees', '😂🎉👍', 'Delivered', 'The last of it']) {
      const row = page.locator('[data-slot="message-row"]', { hasText: text }).first()
      await row.scrollIntoViewIfNeeded()
      await row.hover()
      await row.locator('[data-slot="toolbar"]').waitFor()
      const covered = await page.evaluate(() => {
        const box = document.querySelector('[data-slot="toolbar"] button').getBoundingClientRect()
        return [...document.querySelectorAll('[data-slot="bubble"]')]
          .map((bubble) => ({ text: bubble.textContent, other: bubble.getBoundingClientRect() }))
          .filter(
            ({ other }) =>
              other.left < box.right && other.right > box.left && other.top < box.bottom && other.bottom > box.top,
          )
          .map((bubble) => bubble.text)
      })
      assert.deepEqual(covered, [], `the actions of “${text}”`)
    }
    await page.close()
  },

  async '35 on a phone, back leads to the list, and targets are large enough'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const ana = await openWindow(browser, server, 'ana', {
      viewport: { width: 390, height: 844 },
      hasTouch: true,
      isMobile: true,
    })
    await ana.slot('conversation-link').first().waitFor()
    await ana.page.locator(`[data-conversation="${conversation}"]`).tap()
    await isLive(ana)
    const small = await ana.page.evaluate(() =>
      [...document.querySelectorAll('[data-slot="conversation-header"] button, [data-slot="composer"] button')]
        .filter((button) => button.getClientRects().length > 0)
        .map((button) => [
          button.getAttribute('aria-label'),
          button.getBoundingClientRect().width,
          button.getBoundingClientRect().height,
        ])
        .filter(([, width, height]) => width < 42 || height < 42),
    )
    assert.deepEqual(small, [])
    // The on-screen keyboard covers half of the screen. The last message and the composer must stay
    // in view.
    await ana.page.setViewportSize({ width: 390, height: 430 })
    await settle(ana.page)
    assert.equal(await ana.position(), 0)
    const bottom = await ana.slot('composer').evaluate((composer) => composer.getBoundingClientRect().bottom)
    assert.ok(bottom <= 430, `the composer ends at ${bottom}`)
    await ana.page.goBack()
    await ana.slot('conversation-link').first().waitFor()
    await ana.context.close()
  },

  async '39 with StrictMode there is one socket and no warning'({ browser, server }) {
    const sockets = []
    const context = await browser.newContext()
    const page = await context.newPage()
    const problems = []
    page.on('websocket', (socket) => sockets.push(socket))
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && problems.push(message.text()))
    await page.goto(`${server.url}/demo/?as=sue`)
    await page.locator('[data-slot="new-message"]').waitFor()
    await eventually(() => sockets.filter((socket) => !socket.isClosed()).length === 1, 'one open socket')
    assert.deepEqual(problems, [])
    await context.close()
  },
}
