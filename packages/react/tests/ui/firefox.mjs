// node tests/ui/firefox.mjs [NUMBER or part of a title …]: runs the checks in Firefox. Each check
// can be run alone. Only one window can have the focus. So either one window shows both people, or
// the second person acts through the REST API. Firefox is controlled through WebDriver BiDi, so
// Playwright's helpers for Chromium cannot be used.
//
// The limits of BiDi in Firefox, and their consequences here:
// - Commands that are sent together overtake each other. In check 3, each text and each repetition
//   of the held Enter is therefore awaited before the next one.
// - Touches arrive as events, but do not scroll, and no touch screen can be emulated. The checks
//   "10 while a finger scrolls" and 35 exist only for Chromium.
// - Reduced motion, forced colours and the composition of words cannot be emulated. The checks 28
//   and 34 exist only for Chromium.
import { strict as assert } from 'node:assert'
import { launchFirefox } from '../browser/browsers.mjs'
import { drive } from './driver.mjs'
import { eventually, movableClock, PATIENCE_MS, startServer } from './harness.mjs'
import { shortcuts, withoutMouse } from './keyboard-runs.mjs'
import { directionsOfFields, fakeAppBadge, readElsewhere, startsApart, throughHistory } from './shared-runs.mjs'

const wanted = process.argv.slice(2)
const server = await startServer()
const browser = await launchFirefox()
const page = await browser.newPage()
await page.setViewport({ width: 1280, height: 800 })
page.setDefaultTimeout(PATIENCE_MS)
await page.evaluateOnNewDocument(movableClock)
const problems = []
// Some checks refuse connections, which Firefox reports as errors of the page.
page.on('pageerror', ({ message }) => message.includes('establish a connection') || problems.push(message))
const ana = drive(page, { scope: '[data-person="ana"]' })
const ben = drive(page, { scope: '[data-person="ben"]' })
/** The driver for a page that shows one person. */
const own = drive(page)

const user = (name) => server.user(name)
const SIZE = { width: 1280, height: 800 }

async function show(path) {
  await page.goto(`${server.url}/demo/${path}`)
}
/** Opens a conversation as one person, and waits until it is loaded and connected. */
async function openAs(name, conversation, rest = '') {
  await show(`?as=${name}&c=${conversation}${rest}`)
  await own.until(
    () =>
      document.querySelector('[data-slot="field"], [data-slot="cannot-send"]') !== null &&
      document.querySelector('[data-slot="connection-banner"], [data-slot="skeleton"]') === null,
  )
}
/**
 * Returns the conversation of Ana and Ben, after marking it as read for both. It contains a
 * message, so it is in both lists.
 */
async function conversationOfBoth() {
  const conversation = await user('ana').conversationWith('ben')
  const { last_seq } = await user('ana').call('GET', `/conversations/${conversation}`)
  if (last_seq === 0) await user('ana').send(conversation, 'the first message')
  for (const name of ['ana', 'ben']) await user(name).call('POST', `/conversations/${conversation}/read`, {})
  return conversation
}
/** Opens the conversation of Ana and Ben for both, side by side. Waits until both are connected. */
async function openBoth() {
  const conversation = await conversationOfBoth()
  await show(`?as=ana,ben&c=${conversation}`)
  const link = ben.within(`[data-conversation="${conversation}"]`)
  await page.waitForSelector(link)
  await click(link)
  for (const person of [ana, ben]) {
    await person.appears('[data-slot="field"]')
    for (const sign of ['connection-banner', 'skeleton']) await person.disappears(`[data-slot="${sign}"]`)
  }
}
const seed = (conversation, sender, count, prefix) =>
  server.sql(`insert into public.user_messages (conversation_id, sender_id, content, client_message_id)
    select '${conversation}', '${user(sender).id}', '${prefix} ' || n || '. ' || repeat('word ', (n * 7919) % 50), '${prefix}-' || n from generate_series(1, ${count}) n`)
const rest = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))
const scrollTo = (top) =>
  page.evaluate((value) => {
    document.querySelector('[data-slot="scroller"]').scrollTop = value
  }, top)
const wheelUp = async (dy) => {
  const box = await page.$eval('[data-slot="scroller"]', (element) => {
    const { left, top, width, height } = element.getBoundingClientRect()
    return { x: left + width / 2, y: top + height / 2 }
  })
  await page.mouse.move(box.x, box.y)
  await page.mouse.wheel({ deltaY: -dy })
}
const focusRow = (person, text) =>
  page.$$eval(
    person.within('[data-slot="message-row"]'),
    (rows, part) => rows.findLast((row) => row.textContent.includes(part)).focus(),
    text,
  )
const click = (selector) => page.click(selector)
/** Matches the tick of a message that the server has stored. */
const SENT = '[data-state="sent"], [data-state="delivered"], [data-state="read"]'

const checks = {
  async '21 a person is found by keyboard'() {
    await show('?as=ana,ben')
    await page.waitForSelector(ana.within('[data-slot="new-message"]'))
    await click(ana.within('[data-slot="new-message"]'))
    await page.waitForSelector('[role="combobox"]')
    await page.keyboard.type('ben')
    await page.waitForSelector('[role="option"] mark')
    await page.keyboard.press('Enter')
    await ana.appears('[data-slot="field"]')
  },
  async '1 a message arrives'() {
    const conversation = await conversationOfBoth()
    await show(`?as=ana,ben&c=${conversation}`)
    await ana.appears('[data-slot="field"]')
    await ana.send('hello from Firefox')
    await ben.reads('.rpt-item-preview', 'hello from Firefox')
    await click(ben.within(`[data-conversation="${conversation}"]`))
    await ben.shows('hello from Firefox')
    await ben.appears('[data-slot="field"]')
  },
  async '2 the tick becomes filled when the message is read'() {
    await openBoth()
    await ana.send('read in Firefox')
    await ana.shows('read in Firefox', '[data-state="read"]')
  },
  async '18 typing is shown until the message arrives'() {
    await openBoth()
    await ben.type('an answer')
    await ana.appears('[data-slot="typing-indicator"][data-visible]')
    await page.keyboard.press('Enter')
    await ana.shows('an answer')
    await ana.appears('[data-slot="typing-indicator"]:not([data-visible])')
  },
  async '3 thirty messages while Enter is held keep their order on both sides'() {
    await openBoth()
    const expected = Array.from({ length: 30 }, (_, i) => `quick ${i + 1}.`)
    await ana.focus('[data-slot="field"]')
    // Enter goes down thirty times and up once, like a key that repeats.
    for (const text of expected) {
      await page.evaluate((value) => document.execCommand('insertText', false, value), text)
      await page.keyboard.down('Enter')
    }
    await page.keyboard.up('Enter')
    await ana.shows('quick 30.')
    // The messages were written faster than the server accepts them, so some are still waiting.
    await ana.appears('[data-status="pending"], [data-status="sending"]')
    await ben.shows('quick 30.', '*', 40_000)
    await ana.disappears('[data-status="pending"], [data-status="sending"]')
    for (const person of [ana, ben])
      assert.deepEqual(
        (await person.texts()).filter((text) => text.startsWith('quick ')),
        expected,
      )
    await ana.disappears('[data-status="failed"], [data-kind="error"]')
  },
  async '25 a reaction by keyboard appears on both sides'() {
    await openBoth()
    await ana.send('liked in Firefox')
    await ben.shows('liked in Firefox')
    await focusRow(ben, 'liked in Firefox')
    await page.keyboard.type('+')
    await page.waitForSelector('[data-slot="quick-reactions"] [role="menuitemcheckbox"]')
    await page.keyboard.press('Enter')
    for (const person of [ana, ben]) await person.shows('liked in Firefox', '.rpt-reaction')
  },
  async '23 an edit appears on both sides'() {
    await openBoth()
    await ana.send('first wording')
    await ben.shows('first wording')
    await ana.focus('[data-slot="field"]')
    await page.keyboard.press('ArrowUp')
    await ana.appears('[data-slot="strip"]')
    await page.keyboard.type(', edited')
    await page.keyboard.press('Enter')
    await ben.shows('first wording, edited', '.rpt-edited')
  },
  async '24 a deletion appears on both sides'() {
    await openBoth()
    await ana.send('deleted in Firefox')
    await ana.shows('deleted in Firefox', SENT)
    await ben.shows('deleted in Firefox')
    await focusRow(ana, 'deleted in Firefox')
    await page.keyboard.press('Delete')
    await page.waitForSelector('dialog[open]')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    for (const person of [ana, ben])
      await person.until(
        (rows) => !document.querySelector(rows)?.textContent.includes('deleted in Firefox'),
        person.within('[data-slot="rows"]'),
      )
  },
  async '10 a reader is not moved by new messages'() {
    await openBoth()
    // Ben sends tall messages, so that the list can be scrolled.
    for (let i = 1; i <= 3; i++)
      await user('ben').send(await user('ben').conversationWith('ana'), `tall ${i} ${'word '.repeat(300)}`)
    await ana.shows('tall 3')
    await page.$eval(ana.within('[data-slot="scroller"]'), (scroller) => {
      scroller.scrollTop = -900
    })
    await rest()
    const top = () =>
      page.$$eval(
        ana.within('[data-slot="message-row"]'),
        (rows) => rows.find((row) => row.textContent.includes('tall 2')).getBoundingClientRect().top,
      )
    const before = await top()
    for (let i = 1; i <= 10; i++) await ben.send(`news ${i}.`)
    await ana.reads('[data-slot="pill"]', '10 new messages')
    await rest()
    assert.ok(Math.abs((await top()) - before) <= 1, `moved by ${(await top()) - before} px`)
  },
  async '4 after the page is loaded again, messages written offline are sent in order and once'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    server.cut()
    try {
      for (const text of ['offline 1.', 'offline 2.', 'offline 3.']) await own.send(text)
      await own.shows('offline 3.')
      const name = `rapport:${user('ana').id}`
      await own.until(async (database) => {
        const open = await new Promise((done) => {
          const request = indexedDB.open(database)
          request.onsuccess = () => done(request.result)
        })
        const count = await new Promise((done) => {
          const request = open.transaction('outbox').objectStore('outbox').count()
          request.onsuccess = () => done(request.result)
        })
        open.close()
        return count === 3
      }, name)
      await page.goto('about:blank')
    } finally {
      server.restore()
    }
    await openAs('ana', conversation)
    const isThere = (text) => text.startsWith('offline ')
    const expected = ['offline 1.', 'offline 2.', 'offline 3.']
    await eventually(
      async () =>
        (await user('ben').call('GET', `/messages?conversation_id=${conversation}&limit=5`)).filter(({ content }) =>
          isThere(content),
        ).length === 3,
      'the messages',
    )
    await own.disappears('[data-status="pending"], [data-status="sending"]')
    assert.deepEqual((await own.texts()).filter(isThere), expected)
  },
  async '5 a server outage shows a banner and keeps the draft'() {
    await openAs('ana', await conversationOfBoth())
    await own.type('a draft')
    await server.kill()
    await own.appears('[data-slot="connection-banner"]')
    await server.restart()
    await own.disappears('[data-slot="connection-banner"]', 40_000)
    assert.equal(await own.draft(), 'a draft')
    await page.keyboard.press('Enter')
    await own.shows('a draft', SENT)
  },
  async '8 repeatedly expiring tokens lose no message and sign no user out'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation, '&token_lifetime=5')
    const before = server.requestsTo('/auth/v1/token')
    let count = 0
    while (server.requestsTo('/auth/v1/token') < before + 3) {
      count++
      await own.send(`from here 8-${count}.`)
      await own.shows(`from here 8-${count}.`, SENT)
      await user('ben').send(conversation, `from there 8-${count}.`)
      await own.shows(`from there 8-${count}.`)
    }
    await own.disappears('[data-kind="signed_out"], [data-status="failed"]')
  },
  async '11 when messages arrive, a reader at the bottom stays at the bottom'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    for (const text of ['short 11', `long 11 ${'and longer '.repeat(150)}`, 'last 11'])
      await user('ben').send(conversation, text)
    await own.shows('last 11')
    await rest()
    assert.equal(await page.$eval('[data-slot="scroller"]', (scroller) => scroller.scrollTop), 0)
  },
  async '12 resizing keeps the lowest row in view'() {
    const conversation = await conversationOfBoth()
    await openAs('ana', conversation)
    for (let i = 1; i <= 3; i++) await user('ben').send(conversation, `tall 12-${i} ${'word '.repeat(300)}`)
    await own.shows('tall 12-3')
    await scrollTo(-700)
    await rest()
    const lowest = () =>
      page.evaluate(() => {
        const edge = document.querySelector('[data-slot="scroller"]').getBoundingClientRect().bottom
        return [...document.querySelectorAll('[data-key]')]
          .filter((row) => row.getBoundingClientRect().top < edge)
          .at(-1).dataset.key
      })
    const before = await lowest()
    try {
      for (const size of [{ width: 700, height: 500 }, { width: 500, height: 844 }, SIZE]) {
        await page.setViewport(size)
        await own.until((width) => innerWidth === width, size.width)
        await rest()
        assert.equal(await lowest(), before, `at ${size.width}`)
      }
    } finally {
      await page.setViewport(SIZE)
    }
  },
  async '13 in a conversation with 200 unread messages, the unread line is a third of the way down, and the count falls as messages are shown'() {
    const conversation = await user('sue').conversationWith('zoe')
    await seed(conversation, 'sue', 30, 'old 13')
    await user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    await seed(conversation, 'sue', 200, 'unread 13')
    await show('?as=zoe')
    await own.appears('.rpt-item [data-text="99+"]')
    await click('[data-slot="conversation-link"]')
    await own.appears('[data-slot="unread-line"]')
    await rest()
    const share = await page.$eval('[data-slot="unread-line"]', (line) => {
      const box = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
      return (line.getBoundingClientRect().top - box.top) / box.height
    })
    assert.ok(share > 0.25 && share < 0.42, `the line is at ${share}`)
    const unread = async () => (await user('zoe').call('GET', '/unread-count')).total
    const first = await eventually(async () => {
      const count = await unread()
      return count < 200 && count > 100 ? count : 0
    }, 'the count to fall by the messages that were shown')
    await wheelUp(-2500)
    await eventually(async () => (await unread()) < first, 'the count to fall further')
  },
  async '14 a link to an old message centres, marks and focuses it'() {
    const conversation = await user('sue').conversationWith('zoe')
    await seed(conversation, 'sue', 200, 'linked 14')
    await user('zoe').call('POST', `/conversations/${conversation}/read`, {})
    const id = await server.sql(
      `select id from public.user_messages where conversation_id = '${conversation}' and content like 'linked 14 40.%'`,
    )
    await show(`?as=zoe&c=${conversation}&m=${id}`)
    await own.until((message) => document.activeElement?.dataset?.id === message, id)
    await own.appears(`[data-id="${id}"][data-highlighted]`)
    const share = await page.$eval(`[data-id="${id}"]`, (row) => {
      const box = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
      const place = row.getBoundingClientRect()
      return (place.top + place.height / 2 - box.top) / box.height
    })
    assert.ok(share > 0.35 && share < 0.65, `the middle is at ${share}`)
    await click('[data-slot="pill"]')
    await own.shows('linked 14 200.')
  },
  async '9 scrolling up through 10,000 messages moves nothing'() {
    await page.setViewport({ width: 900, height: 760 })
    try {
      await show('gallery/?only=long')
      await own.appears('[data-slot="message-row"]')
      await throughHistory(page, (deltaY) => page.mouse.wheel({ deltaY }))
    } finally {
      await page.setViewport(SIZE)
    }
  },
  async '15 a conversation marked as unread stays unread until the user leaves and returns'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    await user('ben').send(conversation, 'mark me 15')
    await own.shows('mark me 15')
    await focusRow(own, 'mark me 15')
    await page.keyboard.press('u')
    await own.appears('.rpt-item [data-slot="unread-badge"]')
    const isUnread = async () => {
      const row = await user('ana').call('GET', `/conversations/${conversation}`)
      return row.unread_count > 0 || row.marked_unread
    }
    await eventually(isUnread, 'the conversation to be unread')
    await wheelUp(200)
    await wheelUp(-400)
    await rest()
    assert.ok(await isUnread())
    await show('?as=ana')
    await own.appears('[data-slot="conversation-link"]')
    await click(`[data-conversation="${conversation}"]`)
    await eventually(async () => !(await isUnread()), 'the conversation to be read')
  },
  async '16 a window without focus does not mark messages as read'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    await page.evaluate(() => {
      document.hasFocus = () => false
      dispatchEvent(new Event('blur'))
    })
    await user('ben').send(conversation, 'unseen 16')
    await own.shows('unseen 16')
    await user('ben').send(conversation, 'unseen 16, too')
    await own.shows('unseen 16, too')
    const unread = async () => (await user('ana').call('GET', `/conversations/${conversation}`)).unread_count
    assert.ok((await unread()) >= 2)
    await page.evaluate(() => {
      delete document.hasFocus
      dispatchEvent(new Event('focus'))
    })
    await eventually(async () => (await unread()) === 0, 'the conversation to be read')
  },
  async '17 when a message is read on one device, both devices clear the list, the top bar, the title and the badge'() {
    await user('ana').call('POST', `/conversations/${await user('ana').conversationWith('ben')}/read`, {})
    // Two windows that share no storage, like two devices. The one that reads has the focus.
    const contexts = [await browser.createBrowserContext(), await browser.createBrowserContext()]
    try {
      const [here, there] = await Promise.all(contexts.map((context) => context.newPage({ type: 'window' })))
      for (const device of [here, there]) {
        device.setDefaultTimeout(PATIENCE_MS)
        await device.evaluateOnNewDocument(fakeAppBadge)
        await device.goto(`${server.url}/demo/?as=ana`)
      }
      await there.bringToFront()
      const conversation = await user('ana').conversationWith('ben')
      await readElsewhere({ server, here, there, read: () => there.click(`[data-conversation="${conversation}"]`) })
    } finally {
      await Promise.all(contexts.map((context) => context.close()))
      await page.bringToFront()
    }
  },
  async '19 a user is away after five minutes without input, online after a key, and offline after leaving'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    const status = async (wantedStatus) =>
      eventually(async () => {
        const rows = await user('ben').call('GET', `/presence?user_ids=${user('ana').id}`)
        const [row] = Array.isArray(rows) ? rows : (rows.data ?? rows.presence ?? Object.values(rows).flat())
        return row?.status === wantedStatus
      }, wantedStatus)
    await status('online')
    await page.evaluate(() => window.advance(5 * 60_000 + 1000))
    await status('away')
    // Input is reported at most every ten seconds, measured by the events' `timeStamp`, which the
    // movable clock does not change.
    await page.keyboard.press('Shift')
    await status('online')
    const from = Date.now()
    await page.goto('about:blank')
    await status('offline')
    assert.ok(Date.now() - from <= 12_000, `offline after ${Date.now() - from} ms`)
  },
  async '22 a blocked person sees only that they cannot write'() {
    const [ada, blocked] = [user('ada'), user('ben')]
    const conversation = await ada.conversationWith('ben')
    await ada.call('POST', '/blocks', { user_id: blocked.id })
    try {
      await openAs('ben', conversation)
      await own.reads('[data-slot="cannot-send"]', 'You cannot message this person.')
      await own.disappears('[data-slot="field"]')
    } finally {
      await ada.call('DELETE', `/blocks/${blocked.id}`)
    }
  },
  async '26 archiving can be undone, a message restores the conversation, a pinned one stays on top'() {
    const [ada, other] = [user('ada'), user('ben')]
    const withBen = await ada.conversationWith('ben')
    const withAna = await ada.conversationWith('ana')
    await ada.send(withAna, 'one 26')
    await other.send(withBen, 'two 26')
    await show('?as=ada')
    const link = `[data-conversation="${withBen}"]`
    const press = async (key) => {
      await own.appears(link)
      await own.focus(link)
      await page.keyboard.press(key)
    }
    // The window shows each change before the server has stored it. Ben's message must be sent
    // after the server has stored the last change.
    const isArchived = (is) =>
      eventually(async () => (await ada.call('GET', `/conversations/${withBen}`)).is_archived === is, 'the server to know')
    await press('Delete')
    await own.disappears(link)
    await isArchived(true)
    await page.$$eval('[data-slot="toasts"] button', (buttons) =>
      buttons.find((button) => button.textContent === 'Undo').click(),
    )
    await isArchived(false)
    await press('Delete')
    await own.disappears(link)
    await isArchived(true)
    await other.send(withBen, 'back again 26')
    await own.appears(link)
    await ada.call('PATCH', `/conversations/${withBen}`, { is_pinned: true })
    await user('ana').send(withAna, 'newer 26')
    await own.reads('.rpt-item-preview', 'newer 26')
    await page.mouse.move(900, 600)
    await page.evaluate(() => document.activeElement?.blur())
    await own.until(
      (id) => document.querySelector('[data-slot="conversation-link"]').dataset.conversation === id,
      withBen,
    )
    await ada.call('PATCH', `/conversations/${withBen}`, { is_pinned: false })
  },
  async '27 search finds part of a word, marks it and opens the message; markup is shown as text'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    await own.send('the quarterly numbers 27')
    await own.send('<img src=x onerror=alert(1)> 27')
    await own.shows('onerror=alert', SENT)
    await own.disappears('.rpt-text img')
    await click('[data-slot="conversation-header"] button[aria-label="Search in this conversation"]')
    await page.waitForSelector('input[aria-label="Search in this conversation"]')
    await page.keyboard.type('quart')
    await own.reads('[data-slot="hit"] mark', 'quart')
    await page.$$eval('[data-slot="hit"]', (hits) =>
      hits.find((hit) => hit.textContent.includes('quarterly numbers 27')).click(),
    )
    await own.until(
      () =>
        document.activeElement?.matches('[data-slot="message-row"]') === true &&
        document.activeElement.textContent.includes('quarterly numbers 27'),
    )
  },
  async '29 a message of 4,000 characters can be sent; for 4,001, the reason for the refusal is shown'() {
    const conversation = await user('ana').conversationWith('ben')
    await openAs('ana', conversation)
    const paste = async (text) => {
      await own.focus('[data-slot="field"]')
      await page.evaluate((value) => {
        document.activeElement.select()
        document.execCommand('insertText', false, value)
      }, text)
    }
    await paste('x'.repeat(4001))
    await own.reads('[data-slot="counter"]', '1 character too many')
    assert.equal(await page.$eval('[data-slot="send"]', (button) => button.disabled), true)
    await paste(`${'😀'.repeat(3999)}!`)
    await own.reads('[data-slot="counter"]', '0 characters left')
    await page.keyboard.press('Enter')
    await own.shows('😀😀', SENT)
  },
  async '30 Arabic mirrors the layout'() {
    await show('gallery/?only=messenger&lang=ar')
    await page.waitForSelector('[data-slot="conversation-link"]')
    await click('[data-slot="conversation-link"]')
    await own.appears('[data-slot="message"][data-own]')
    const { list, mine, width } = await page.evaluate(() => {
      const box = (selector) => document.querySelector(selector).getBoundingClientRect()
      return {
        list: box('[data-slot="list-pane"]').left,
        mine: box('[data-slot="message"][data-own]').left,
        width: innerWidth,
      }
    })
    assert.ok(list > width / 2, 'the list is on the right')
    assert.ok(mine < width / 2, 'own messages are on the left')
    assert.deepEqual(await directionsOfFields(page), ['rtl', 'rtl'])
    assert.ok((await startsApart(page)) <= 2, 'the preview begins below the name')
  },
  async '31 messages are written, found, changed and tidied without a mouse'() {
    await withoutMouse({ server }, { page, open: show })
  },
  async '31 the shortcuts open conversations, the search and the list of shortcuts'() {
    await shortcuts({ server }, { page, open: show })
  },
}

let passed = 0
let failed = 0
try {
  for (const [title, check] of Object.entries(checks)) {
    if (wanted.length > 0 && !wanted.some((word) => (/^\d+$/.test(word) ? title.startsWith(`${word} `) : title.includes(word))))
      continue
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
          .slice(0, 24)
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
