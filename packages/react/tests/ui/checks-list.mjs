// Checks of the message list: position, opening, jumps and marking as read.
import { strict as assert } from 'node:assert'
import { eventually, openWindow, settle } from './harness.mjs'
import { both, isLive } from './checks-messages.mjs'
import { throughHistory } from './shared-runs.mjs'

/** Inserts `count` messages into the table, for checks that need a long history. */
const seed = (server, conversation, sender, count, prefix) =>
  server.sql(`insert into public.user_messages (conversation_id, sender_id, content, client_message_id)
    select '${conversation}', '${server.user(sender).id}', '${prefix} ' || n || '. ' || repeat('word ', (n * 7919) % 50), '${prefix}-' || n from generate_series(1, ${count}) n`)

/** Asserts that the message is the lowest one, and in view. */
async function isAtEnd(window, text) {
  await settle(window.page)
  const last = await window.slot('message-row').last().textContent()
  assert.ok(last.includes(text), `the lowest message is ${last}`)
  assert.equal(await window.position(), 0)
}

/** Asserts that the unread line is a third of the way down the list. */
async function isAtUnreadLine(window) {
  await window.slot('unread-line').waitFor()
  await settle(window.page)
  const share = await window.slot('unread-line').evaluate((line) => {
    const box = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
    return (line.getBoundingClientRect().top - box.top) / box.height
  })
  assert.ok(share > 0.25 && share < 0.42, `the line is at ${share}`)
}

/**
 * Opens Sue's window and her conversation with Zoe. After `leave`, which opens the conversation
 * with Ada, `receive` stores unread messages from Zoe.
 */
async function opened({ browser, server }, prefix) {
  const sue = server.user('sue')
  const [withZoe, withAda] = [await sue.conversationWith('zoe'), await sue.conversationWith('ada')]
  await seed(server, withZoe, 'zoe', 80, `old ${prefix}`)
  for (const id of [withZoe, withAda]) await sue.call('POST', `/conversations/${id}/read`, {})
  const window = await openWindow(browser, server, 'sue')
  const link = (id) => window.page.locator(`[data-conversation="${id}"]`)
  const go = async (id) => {
    await link(id).click()
    await window.page.locator(`[aria-current="page"][data-conversation="${id}"]`).waitFor()
    await isLive(window)
    await settle(window.page)
  }
  await go(withZoe)
  return {
    window,
    withZoe,
    withAda,
    go,
    leave: () => go(withAda),
    async receive(count, text) {
      await seed(server, withZoe, 'zoe', count, `${prefix} ${text}`)
      await link(withZoe).locator(`[data-slot="unread-badge"][data-text="${count}"]`).waitFor()
    },
    /** Goes to the end, and waits until all messages are read. */
    async readAll(text) {
      if ((await window.slot('pill').count()) > 0) await window.slot('pill').click()
      await window.row(`${prefix} ${text}`).last().waitFor()
      await link(withZoe).locator('[data-slot="unread-badge"]').waitFor({ state: 'detached' })
    },
  }
}

export const checks = {
  async '9 while scrolling up through 10,000 messages, loading history moves no visible row'({ browser, server }) {
    const page = await browser.newPage({ viewport: { width: 900, height: 760 } })
    await page.goto(`${server.url}/demo/gallery/?only=long`)
    await page.locator('[data-slot="message-row"]').last().waitFor()
    await throughHistory(page, (deltaY) => page.mouse.wheel(0, deltaY))
    await page.close()
  },

  async '10 a reader is not moved by new messages, and the button that counts them leads to the first'(t) {
    const { conversation, ana, close } = await both(t)
    for (let i = 1; i <= 6; i++)
      await t.server.user('ana').send(conversation, `filler 10 ${i} ${'some more words '.repeat(40)}`)
    await ana.row('filler 10 6').waitFor()
    await ana.wheel(-900)
    await ana.until(() => document.querySelector('[data-slot="scroller"]').scrollTop < -500)
    await settle(ana.page)
    const before = await ana.topOf('filler 10 2')
    const ben = t.server.user('ben')
    for (let i = 1; i <= 10; i++) await ben.send(conversation, `news 10-${i}.`)
    await ana.until(() => document.querySelector('[data-slot="pill"]')?.textContent === '10 new messages')
    await settle(ana.page)
    assert.ok(
      Math.abs((await ana.topOf('filler 10 2')) - before) <= 1,
      `moved from ${before} to ${await ana.topOf('filler 10 2')}`,
    )
    await ana.slot('pill').click()
    await ana.until(() => {
      const box = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
      const row = [...document.querySelectorAll('[data-slot="message-row"]')]
        .find((one) => one.textContent.includes('news 10-1.'))
        ?.getBoundingClientRect()
      return row !== undefined && row.top >= box.top && row.bottom <= box.bottom
    })
    await close()
  },

  async '10 while a finger scrolls, new messages wait and are counted'({ browser, server }) {
    const page = await browser.newPage({ viewport: { width: 390, height: 700 }, hasTouch: true, isMobile: true })
    await page.goto(`${server.url}/demo/gallery/?only=long`)
    await page.locator('[data-slot="message-row"]').last().waitFor()
    const session = await page.context().newCDPSession(page)
    const touch = (type, y) =>
      session.send('Input.dispatchTouchEvent', { type, touchPoints: type === 'touchEnd' ? [] : [{ x: 180, y }] })
    const drag = async (from, to) => {
      await touch('touchStart', from)
      for (let step = 1; step <= 10; step++) await touch('touchMove', from + ((to - from) * step) / 10)
    }
    // The first drag scrolls away from the end. A message that arrives during the second must wait.
    await drag(200, 600)
    await touch('touchEnd')
    await page.waitForFunction(() => document.querySelector('[data-slot="scroller"]').scrollTop < -200)
    await drag(200, 300)
    await page.evaluate(() => window.gallery.receive('while a finger is down'))
    await page.waitForFunction(() => document.querySelector('[data-slot="pill"]')?.textContent === '1 new message')
    assert.equal(await page.getByText('while a finger is down').count(), 0)
    await touch('touchEnd')
    await page.getByText('while a finger is down').waitFor({ state: 'attached' })
    await page.close()
  },

  async '10 at the beginning, no day floats above its own separator'({ browser, server }) {
    const sue = server.user('sue')
    const conversation = await sue.conversationWith('zoe')
    for (let i = 1; i <= 6; i++) await sue.send(conversation, `beginning 10 ${i} ${'some more words '.repeat(60)}`)
    const page = await browser.newPage({ viewport: { width: 390, height: 700 } })
    await page.goto(`${server.url}/demo/?as=sue&c=${conversation}`)
    await page.locator('[data-slot="message-row"]').last().waitFor()
    await settle(page)
    /** Scrolls, and returns whether a day floats then. It would be hidden again after a moment. */
    const floatsAfter = (pixels) =>
      page.evaluate(async (pixels) => {
        document.querySelector('[data-slot="scroller"]').scrollBy(0, pixels)
        for (let frames = 0; frames < 4; frames++) await new Promise((done) => requestAnimationFrame(done))
        return document.querySelector('[data-slot="day-float"][data-visible]') !== null
      }, pixels)
    assert.equal(await floatsAfter(-300), true)
    await floatsAfter(-100_000)
    assert.equal(await floatsAfter(30), false)
    await page.close()
  },

  async '11 when messages arrive, a reader at the bottom stays at the bottom'(t) {
    const { conversation, ana, close } = await both(t)
    const ben = t.server.user('ben')
    for (const text of ['short 11', `long 11 ${'and longer '.repeat(150)}`, 'last 11'])
      await ben.send(conversation, text)
    await ana.row('last 11').waitFor()
    await settle(ana.page)
    assert.equal(await ana.position(), 0)
    await close()
  },

  async '12 resizing keeps the lowest row in view'(t) {
    const { ana, close } = await both(t)
    await ana.wheel(-700)
    await ana.until(() => document.querySelector('[data-slot="scroller"]').scrollTop < -300)
    await settle(ana.page)
    const lowest = () =>
      ana.slot('scroller').evaluate((scroller) => {
        const edge = scroller.getBoundingClientRect().bottom
        return [...document.querySelectorAll('[data-key]')]
          .filter((row) => row.getBoundingClientRect().top < edge)
          .at(-1).dataset.key
      })
    const before = await lowest()
    for (const size of [
      { width: 700, height: 500 },
      { width: 390, height: 844 },
      { width: 1000, height: 800 },
    ]) {
      await ana.page.setViewportSize(size)
      await settle(ana.page)
      assert.equal(await lowest(), before, `at ${size.width}`)
    }
    await close()
  },

  async '13 in a conversation with 200 unread messages, the unread line is a third of the way down, and the count falls as messages are shown'({ browser, server }) {
    const conversation = await server.user('sue').conversationWith('zoe')
    await seed(server, conversation, 'sue', 30, 'old 13')
    await server.user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    await seed(server, conversation, 'sue', 200, 'unread 13')
    const zoe = await openWindow(browser, server, 'zoe', { viewport: { width: 1000, height: 800 } })
    await zoe.page.locator('.rpt-item [data-text="99+"]').waitFor()
    await zoe.openChat('Sue')
    await isAtUnreadLine(zoe)
    const unread = async () => (await server.user('zoe').call('GET', '/unread-count')).total
    const first = await eventually(async () => {
      const count = await unread()
      return count < 200 && count > 100 ? count : 0
    }, 'the count to fall by the messages that were shown')
    await zoe.wheel(2500)
    await eventually(async () => (await unread()) < first, 'the count to fall further')
    await zoe.context.close()
  },

  async '13 on each return to a conversation, the list is at the line of the messages that have arrived'(t) {
    const { window, withZoe, go, leave, receive, readAll } = await opened(t, 'return 13')
    const { page } = window
    const ways = {
      'a click': () => go(withZoe),
      'the keyboard': () => page.keyboard.press('Alt+Shift+ArrowUp'),
      'the back button': () => page.goBack(),
      'a click, again': () => go(withZoe),
    }
    for (const [way, enter] of Object.entries(ways)) {
      await leave()
      await receive(60, way)
      await enter()
      await isAtUnreadLine(window)
      const first = await window.slot('unread-line').evaluate((line) => line.nextElementSibling.textContent)
      assert.ok(first.includes(`return 13 ${way} 1.`), `the line is above ${first}`)
      await readAll(`${way} 60.`)
    }
    // The line stays until the user leaves.
    await page.locator('[data-slot="scroller"]').focus()
    for (let i = 0; i < 40 && (await window.slot('unread-line').count()) === 0; i++) {
      await window.wheel(-400)
      await settle(page)
    }
    await window.slot('unread-line').waitFor()
    await leave()
    await go(withZoe)
    assert.equal(await window.slot('unread-line').count(), 0)
    assert.deepEqual(window.problems, [])
    await window.context.close()
  },

  async '13 the unread line is shown even if the user had left the conversation at another position'(t) {
    const { window, withZoe, go, leave, receive, readAll } = await opened(t, 'place 13')
    for (const count of [60, 5]) {
      // Scrolls further than the rows that the list mounts first.
      for (let i = 0; i < 40 && (await window.position()) > -1500; i++) {
        await window.wheel(-400)
        await settle(window.page)
      }
      const place = await window.position()
      await leave()
      await go(withZoe)
      assert.ok(Math.abs((await window.position()) - place) <= 1, 'the place is kept without new messages')
      await leave()
      await receive(count, `${count} new`)
      await go(withZoe)
      await window.slot('unread-line').waitFor()
      await settle(window.page)
      const isInView = await window.slot('unread-line').evaluate((line) => {
        const [port, box] = [document.querySelector('[data-slot="scroller"]'), line].map((one) =>
          one.getBoundingClientRect(),
        )
        return box.top >= port.top && box.bottom <= port.bottom
      })
      assert.ok(isInView, `the line above ${count} messages is not in view`)
      await readAll(`${count} new ${count}.`)
    }
    // The user leaves at an earlier part of the history, to which a link leads.
    const id = await t.server.sql(
      `select id from public.user_messages where conversation_id = '${withZoe}' and content like 'old place 13 1.%'`,
    )
    const follow = (message) =>
      window.page.evaluate(
        ([conversation, wanted]) => {
          history.pushState(null, '', `?as=sue&c=${conversation}&m=${wanted}`)
          dispatchEvent(new PopStateEvent('popstate'))
        },
        [withZoe, message],
      )
    await leave()
    await follow(id)
    await window.until((wanted) => document.activeElement?.dataset?.id === wanted, id)
    await leave()
    await receive(60, 'far')
    await go(withZoe)
    await isAtUnreadLine(window)
    await readAll('far 60.')

    // A notification leads to its message. The unread line is above the first unread message.
    await leave()
    await receive(12, 'notified')
    const last = await t.server.sql(
      `select id from public.user_messages where conversation_id = '${withZoe}' and content like 'place 13 notified 12.%'`,
    )
    await follow(last)
    await window.until((wanted) => document.activeElement?.dataset?.id === wanted, last)
    await settle(window.page)
    const above = await window.slot('unread-line').evaluate((line) => line.nextElementSibling.textContent)
    assert.ok(above.includes('place 13 notified 1.'), `the line is above ${above}`)
    assert.deepEqual(window.problems, [])
    await window.context.close()
  },

  async '13 a message written at the unread line is shown at the end, even while newer pages are loading'({
    browser,
    server,
  }) {
    const conversation = await server.user('sue').conversationWith('zoe')
    await server.user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    await seed(server, conversation, 'sue', 300, 'above 13')
    const zoe = await openWindow(browser, server, 'zoe', { path: `&c=${conversation}` })
    // Pages of newer messages wait until the message was written.
    const held = []
    await zoe.page.route(/\/messages\?.*after=/, (route) => held.push(route))
    await zoe.slot('unread-line').waitFor()
    await zoe.wheel(1200)
    await eventually(() => held.length > 0, 'a page of newer messages to be requested')
    await zoe.send('mine 13')
    await zoe.row('mine 13').waitFor()
    await Promise.all(held.map((route) => route.continue()))
    await zoe.row('above 13 300.').waitFor()
    await isAtEnd(zoe, 'mine 13')
    assert.equal(await zoe.slot('unread-line').count(), 0)
    assert.deepEqual(zoe.problems, [])
    await zoe.context.close()
  },

  async '13 a message that was written at the unread line and fails stays at the end, and can be sent again'({ browser, server }) {
    const conversation = await server.user('sue').conversationWith('zoe')
    await server.user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    await seed(server, conversation, 'sue', 300, 'failing 13')
    const zoe = await openWindow(browser, server, 'zoe', { path: `&c=${conversation}` })
    await zoe.slot('unread-line').waitFor()
    await isLive(zoe)
    let isRefused = true
    await zoe.page.route(/\/messages$|\/messages\?current_user_id=[^&]*$/, (route) =>
      isRefused && route.request().method() === 'POST'
        ? route.fulfill({ status: 403, json: { error: 'Refused.', code: 'not_allowed_recipient' } })
        : route.continue(),
    )
    await zoe.send('refused 13')
    await zoe.slot('failed').waitFor()
    await zoe.row('failing 13 300.').waitFor()
    await isAtEnd(zoe, 'refused 13')
    isRefused = false
    await zoe.slot('failed').locator('button').first().click()
    await zoe.until(() =>
      ['sent', 'delivered', 'read'].includes(
        [...document.querySelectorAll('[data-slot="message"]')].at(-1).dataset.status,
      ),
    )
    await isAtEnd(zoe, 'refused 13')
    await zoe.context.close()
  },

  async '14 a link to an old message centres, marks and focuses it'({ browser, server }) {
    const conversation = await server.user('sue').conversationWith('zoe')
    await seed(server, conversation, 'sue', 200, 'linked 14')
    await server.user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    const id = await server.sql(
      `select id from public.user_messages where conversation_id = '${conversation}' and content like 'linked 14 40.%'`,
    )
    const zoe = await openWindow(browser, server, 'zoe', { path: `&c=${conversation}&m=${id}` })
    await zoe.until((wanted) => document.activeElement?.dataset?.id === wanted, id)
    await zoe.page.locator(`[data-id="${id}"][data-highlighted]`).waitFor()
    const share = await zoe.page.locator(`[data-id="${id}"]`).evaluate((row) => {
      const box = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
      const place = row.getBoundingClientRect()
      return (place.top + place.height / 2 - box.top) / box.height
    })
    assert.ok(share > 0.35 && share < 0.65, `the middle is at ${share}`)
    await zoe.slot('pill').click()
    await zoe.row('linked 14 200.').waitFor()
    await zoe.context.close()
  },

  async '14 at an old message, a message from another device moves nothing, and a reply leads to the end'({
    browser,
    server,
  }) {
    const conversation = await server.user('sue').conversationWith('zoe')
    await seed(server, conversation, 'sue', 200, 'reply 14')
    await server.user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    const id = await server.sql(
      `select id from public.user_messages where conversation_id = '${conversation}' and content like 'reply 14 40.%'`,
    )
    const zoe = await openWindow(browser, server, 'zoe', { path: `&c=${conversation}&m=${id}` })
    await zoe.until((wanted) => document.activeElement?.dataset?.id === wanted, id)
    await isLive(zoe)
    const before = await zoe.topOf('reply 14 40.')
    await server.user('zoe').send(conversation, 'elsewhere 14')
    // The list of conversations shows that the message has arrived.
    await zoe.page.locator('[data-slot="conversation-link"]:has-text("elsewhere 14")').waitFor()
    await settle(zoe.page)
    assert.equal(await zoe.topOf('reply 14 40.'), before)
    assert.equal(await zoe.row('elsewhere 14').count(), 0)
    await zoe.page.locator(`[data-id="${id}"]`).focus()
    await zoe.page.keyboard.press('r')
    await zoe.slot('strip').waitFor()
    await zoe.send('answer 14')
    await zoe.row('elsewhere 14').waitFor()
    await isAtEnd(zoe, 'answer 14')
    assert.equal(await zoe.row('answer 14').locator('[data-slot="quote"]').count(), 1)
    await zoe.context.close()
  },

  async '15 a conversation marked as unread stays unread until the user leaves and returns'(t) {
    const { conversation, ana, close } = await both(t)
    await t.server.user('ben').send(conversation, 'mark me 15')
    await ana.row('mark me 15').focus()
    await ana.page.keyboard.press('u')
    await ana.page.locator('.rpt-item [data-slot="unread-badge"]').waitFor()
    const isUnread = async () => {
      const row = await t.server.user('ana').call('GET', `/conversations/${conversation}`)
      return row.unread_count > 0 || row.marked_unread
    }
    await eventually(isUnread, 'the conversation to be unread')
    // Scrolling in the conversation does not mark it as read again.
    await ana.wheel(-200)
    await ana.wheel(400)
    await settle(ana.page)
    assert.ok(await isUnread())
    await ana.page.goto(`${t.server.url}/demo/?as=ana`)
    await ana.openChat('Ben')
    await eventually(async () => !(await isUnread()), 'the conversation to be read')
    await close()
  },

  async '16 a window without focus does not mark messages as read'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}` })
    await isLive(ana)
    await ana.page.evaluate(() => {
      document.hasFocus = () => false
      dispatchEvent(new Event('blur'))
    })
    await server.user('ben').send(conversation, 'unseen 16')
    await ana.row('unseen 16').waitFor()
    const unread = async () => (await server.user('ana').call('GET', `/conversations/${conversation}`)).unread_count
    // If the window wrongly marked messages as read, it would do so within a second. Waiting for
    // another message allows time for such a request.
    await server.user('ben').send(conversation, 'unseen 16, too')
    await ana.row('unseen 16, too').waitFor()
    assert.ok((await unread()) >= 2)
    await ana.page.evaluate(() => {
      delete document.hasFocus
      dispatchEvent(new Event('focus'))
    })
    await eventually(async () => (await unread()) === 0, 'the conversation to be read')
    await ana.context.close()
  },
}
