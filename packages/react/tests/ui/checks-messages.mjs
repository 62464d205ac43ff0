// Checks of sending, receiving, ticks and outages.
import { strict as assert } from 'node:assert'
import { eventually, openWindow } from './harness.mjs'

/** Marks all as read. Otherwise, a window opens at the first unread message, far from new ones. */
async function readAll(server, conversation) {
  for (const name of ['ana', 'ben']) await server.user(name).call('POST', `/conversations/${conversation}/read`, {})
}

/** Opens a window of Ana and one of Ben, both with their conversation. */
export async function both(t, options = {}) {
  const { browser, server } = t
  const conversation = await server.user('ana').conversationWith('ben')
  await readAll(server, conversation)
  const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}`, ...options })
  const ben = await openWindow(browser, server, 'ben', { path: `&c=${conversation}`, ...options })
  await Promise.all([ana.field.waitFor(), ben.field.waitFor()])
  await Promise.all([isLive(ana), isLive(ben)])
  return { conversation, ana, ben, close: () => Promise.all([ana.context.close(), ben.context.close()]) }
}

/** Waits until no banner is shown and the list is loaded. */
export async function isLive(window) {
  await window.until(
    () => !document.querySelector('[data-slot="connection-banner"], [data-slot="message-list"] [data-slot="skeleton"]'),
  )
}

export const checks = {
  async '1 a message is shown immediately to its sender, then to the recipient, each once'(t) {
    const { ana, ben, close } = await both(t)
    await ana.field.fill('hello 1')
    const frames = await ana.page.evaluate(async () => {
      const field = document.querySelector('[data-slot="field"]')
      field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }))
      for (let frame = 1; frame <= 10; frame++) {
        await new Promise((done) => requestAnimationFrame(done))
        if (
          [...document.querySelectorAll('[data-slot="message-row"]')].some((row) => row.textContent.includes('hello 1'))
        )
          return frame
      }
      return Infinity
    })
    assert.ok(frames <= 2, `shown after ${frames} frames`)
    assert.equal(await ana.field.inputValue(), '')
    await ben.row('hello 1').waitFor()
    await ana.until(() =>
      ['sent', 'delivered', 'read'].includes(
        [...document.querySelectorAll('[data-slot="message"]')].at(-1).dataset.status,
      ),
    )
    for (const window of [ana, ben]) assert.equal(await window.row('hello 1').count(), 1)
    assert.deepEqual([...ana.problems, ...ben.problems], [])
    await close()
  },

  async '1 the message is painted before its request begins'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    await readAll(server, conversation)
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}` })
    await ana.field.waitFor()
    await isLive(ana)
    await ana.field.fill('painted 1')
    await ana.page.evaluate(() => {
      window.order = []
      const { fetch } = window
      window.fetch = (address, options) => {
        if (options?.method === 'POST') window.order.push('request')
        return fetch(address, options)
      }
      const isShown = () => document.querySelector('[data-slot="chunks"]').textContent.includes('painted 1')
      const look = () => (isShown() ? window.order.push('frame') : requestAnimationFrame(look))
      requestAnimationFrame(look)
    })
    await ana.page.keyboard.press('Enter')
    await ana.until(() => window.order.includes('request') && window.order.includes('frame'))
    assert.equal((await ana.page.evaluate(() => window.order))[0], 'frame')
    await ana.context.close()
  },

  async '2 the ticks change when Ben receives and reads a message'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}` })
    await isLive(ana)
    await ana.send('tick 2, nobody there')
    const state = (text, wanted) => ana.row(text).locator(`[data-state="${wanted}"]`).waitFor()
    await state('tick 2, nobody there', 'sent')
    const ben = await openWindow(browser, server, 'ben')
    await ben.slot('conversation-link').first().waitFor()
    await isLive(ben)
    // A group shows only the state of its last message. A message from Ben starts a new group.
    await server.user('ben').send(conversation, 'an answer 2')
    await ana.row('an answer 2').waitFor()
    await ana.send('tick 2, somebody there')
    await state('tick 2, somebody there', 'delivered')
    await ben.openChat('Ana')
    await state('tick 2, somebody there', 'read')
    await Promise.all([ana.context.close(), ben.context.close()])
  },

  async '3 while Enter is held, thirty messages are sent and keep their order on both sides'(t) {
    const { ana, ben, close } = await both(t)
    const { keyboard } = ana.page
    const expected = Array.from({ length: 30 }, (_, i) => `quick ${i + 1}.`)
    await ana.field.focus()
    // Types all messages without waiting, with Enter held down.
    await Promise.all(expected.flatMap((text) => [keyboard.insertText(text), keyboard.down('Enter')]))
    await keyboard.up('Enter')
    await ana.row('quick 30.').waitFor()
    // The messages were written faster than the server accepts them, so some are still waiting.
    await ana.until(() => document.querySelector('[data-status="pending"], [data-status="sending"]') !== null)
    await ben.row('quick 30.').waitFor({ timeout: 40_000 })
    await ana.until(() => document.querySelectorAll('[data-status="pending"], [data-status="sending"]').length === 0)
    for (const window of [ana, ben])
      assert.deepEqual(
        (await window.texts()).filter((text) => text.startsWith('quick ')),
        expected,
      )
    assert.equal(await ana.page.locator('[data-status="failed"], [data-kind="error"]').count(), 0)
    assert.deepEqual(ana.problems, [])
    await close()
  },

  async '4 after a reload, messages written offline arrive in order and once'(t) {
    const { ana, ben, close } = await both(t)
    await ana.context.setOffline(true)
    for (const text of ['offline 1.', 'offline 2.', 'offline 3.']) await ana.send(text)
    await ana.row('offline 3.').waitFor()
    // The outbox is written shortly after the key press, before a user could reload the page.
    await ana.page.waitForFunction(async () => {
      const names = await indexedDB.databases()
      return names.length > 0
    })
    await ana.context.setOffline(false)
    await ana.page.reload()
    await ben.row('offline 3.').waitFor()
    assert.deepEqual(
      (await ben.texts()).filter((text) => text.startsWith('offline ')),
      ['offline 1.', 'offline 2.', 'offline 3.'],
    )
    await ana.row('offline 3.').waitFor()
    assert.deepEqual(
      (await ana.texts()).filter((text) => text.startsWith('offline ')),
      ['offline 1.', 'offline 2.', 'offline 3.'],
    )
    await close()
  },

  async '5 a server outage shows a banner, keeps the draft, and loses no message'(t) {
    const { ana, ben, close } = await both(t)
    await ana.field.fill('a draft')
    await t.server.kill()
    const killed = Date.now()
    await ana.slot('connection-banner').waitFor()
    const after = Date.now() - killed
    assert.ok(after >= 1900, `the banner appeared after ${after} ms`)
    await ben.send('sent during the outage')
    await ben.row('sent during the outage').waitFor()
    await t.server.restart()
    await ana.row('sent during the outage').waitFor({ timeout: 40_000 })
    for (const window of [ana, ben]) await window.slot('connection-banner').waitFor({ state: 'detached' })
    assert.equal(await ana.field.inputValue(), 'a draft')
    await ana.field.fill('')
    for (const window of [ana, ben]) assert.equal(await window.row('sent during the outage').count(), 1)
    await close()
  },

  async '6 after three hundred changes during an outage, both windows show the same'(t) {
    // The window is high enough for all rows to be in the document.
    const { conversation, ana, ben, close } = await both(t, { viewport: { width: 800, height: 2600 } })
    const user = t.server.user('ben')
    const old = []
    for (let i = 1; i <= 10; i++) old.push(await user.send(conversation, `before 6-${i}.`))
    await ana.row('before 6-10.').waitFor()
    await ana.context.setOffline(true)
    const sent = []
    const sends = async () => {
      for (let i = 1; i <= 60; i++) sent.push(await user.send(conversation, `missed 6-${i}.`))
    }
    // Changes messages while others are still being sent.
    const changes = async () => {
      for (let i = 0; i < 240; i++) {
        const all = [...old, ...sent]
        const { id } = all[(i * 31) % all.length]
        if (i % 6 === 5) {
          const gone = all.filter((one) => !one.isDeleted)[i % 7]
          if (gone) await user.call('DELETE', `/messages/${gone.id}`)
          if (gone) gone.isDeleted = true
        } else if (!all.find((one) => one.id === id).isDeleted) {
          if (i % 2 === 0) await user.call('PATCH', `/messages/${id}`, { content: `edited 6-${i}.` })
          else await user.call('POST', `/messages/${id}/reactions`, { reaction: ['🎉', '👍', '❤️'][i % 3] })
        }
      }
    }
    await Promise.all([sends(), changes()])
    await ben.row('missed 6-60.').waitFor()
    await ana.context.setOffline(false)
    const rows = (window) =>
      window.page.locator('[data-slot="message-row"]').evaluateAll(
        (all, first) =>
          all
            .filter((row) => Number(row.dataset.seq) >= first)
            .map((row) => {
              const bubble = row.querySelector('.rpt-text')
              const reactions = row.querySelector('[data-slot="reactions"]')?.textContent ?? ''
              return [row.dataset.seq, bubble?.matches('.rpt-text-deleted'), bubble?.firstChild?.textContent, reactions].join('|')
            }),
        old[0].seq,
      )
    // The two windows word a deletion differently, so only the fact of the deletion is compared.
    const comparable = async (window) => (await rows(window)).map((row) => row.replace(/\|true\|.*/, '|deleted'))
    const wanted = await eventually(async () => {
      const [left, right] = [await comparable(ana), await comparable(ben)]
      return left.length === 70 && left.join() === right.join() ? left : null
    }, 'both windows to show the same').catch(async (error) => {
      assert.deepEqual(await comparable(ana), await comparable(ben))
      throw error
    })
    assert.equal(new Set(wanted.map((row) => row.split('|')[0])).size, 70)
    await close()
  },

  async '8 repeatedly expiring tokens lose no message and sign no user out'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    await readAll(server, conversation)
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}&token_lifetime=5` })
    await isLive(ana)
    const before = server.requestsTo('/auth/v1/token')
    // Ana and Ben write while four tokens expire.
    let count = 0
    while (server.requestsTo('/auth/v1/token') < before + 4) {
      count++
      await ana.send(`from here 8-${count}.`)
      await ana.row(`from here 8-${count}.`).locator('[data-status="sent"], [data-status="delivered"], [data-status="read"]').waitFor()
      await server.user('ben').send(conversation, `from there 8-${count}.`)
      await ana.row(`from there 8-${count}.`).waitFor()
      assert.ok(count < 400)
    }
    const texts = (await ana.texts()).filter((text) => / 8-\d+\.$/.test(text))
    const expected = Array.from({ length: count }, (_, i) => [`from here 8-${i + 1}.`, `from there 8-${i + 1}.`]).flat()
    assert.deepEqual(texts, expected.slice(-texts.length))
    assert.ok(texts.length >= Math.min(expected.length, 20))
    assert.equal(await ana.page.locator('[data-kind="signed_out"], [data-status="failed"]').count(), 0)
    await ana.context.close()
  },

  async '23 an edit appears on both sides with its history, and a conflicting edit requires a choice'(t) {
    const { ana, ben, close } = await both(t)
    await ana.send('first wording 23')
    await ben.row('first wording 23').waitFor()
    await ana.field.press('ArrowUp')
    await ana.slot('strip').waitFor()
    assert.equal(await ana.field.inputValue(), 'first wording 23')
    await ana.send('second wording 23')
    await ben.row('second wording 23').locator('.rpt-edited').click()
    await ben.slot('dialog').getByText('first wording 23').waitFor()
    await ben.page.keyboard.press('Escape')
    // Another window edits the message while this one is editing it.
    const id = await ana.row('second wording 23').getAttribute('data-id')
    await ana.field.press('ArrowUp')
    await ana.field.fill('from here 23')
    await t.server.user('ana').call('PATCH', `/messages/${id}`, { content: 'from elsewhere 23' })
    await ana.row('from elsewhere 23').waitFor()
    await ana.page.keyboard.press('Enter')
    await ana.slot('dialog').getByText('from elsewhere 23').waitFor()
    await ana.slot('dialog').locator('[data-kind="primary"]').click()
    await ben.row('from here 23').waitFor()
    await close()
  },

  async '24 a deletion leaves a tombstone on both sides, also in quotes'(t) {
    const { ana, ben, close } = await both(t)
    await ana.send('to be deleted 24')
    await ben.row('to be deleted 24').waitFor()
    await ben.row('to be deleted 24').hover()
    await ben.slot('toolbar').locator('button').nth(1).click()
    await ben.send('a reply 24')
    await ana.row('a reply 24').locator('[data-slot="quote"]').waitFor()
    await ana.row('to be deleted 24').first().locator('.rpt-bubble').click({ button: 'right' })
    await ana.page.getByRole('menuitem', { name: 'Delete for everyone' }).click()
    await ana.slot('dialog').getByRole('button', { name: 'Delete' }).click()
    for (const window of [ana, ben]) {
      await window.until(() => !document.querySelector('[data-slot="rows"]').textContent.includes('to be deleted 24'))
      await window.row('a reply 24').locator('[data-slot="quote"]', { hasText: 'Message deleted' }).waitFor()
    }
    await close()
  },

  async '25 both sides count the same reactions, added by keyboard and by mouse'(t) {
    const { ana, ben, close } = await both(t)
    await ana.send('react to this 25')
    await ben.row('react to this 25').waitFor()
    await ana.row('react to this 25').focus()
    await ana.page.keyboard.press('+')
    await ana.page.keyboard.press('Enter')
    await ben.row('react to this 25').locator('.rpt-reaction').waitFor()
    await ben.row('react to this 25').locator('.rpt-reaction').click()
    const count = (window, wanted) =>
      window.until(
        (value) =>
          [...document.querySelectorAll('[data-slot="message-row"]')].some(
            (row) =>
              row.textContent.includes('react to this 25') &&
              row.querySelector('.rpt-reaction-count')?.textContent === value,
          ),
        wanted,
      )
    await Promise.all([count(ana, '2'), count(ben, '2')])
    // Two quick clicks remove the reaction and add it again.
    await ben.row('react to this 25').locator('.rpt-reaction').dblclick()
    await Promise.all([count(ana, '2'), count(ben, '2')])
    await close()
  },

  async '27 search finds part of a word, marks it and opens the message; markup is shown as text'(t) {
    const { ana, close } = await both(t)
    await ana.send('the quarterly numbers 27')
    await ana.send('<img src=x onerror=alert(1)> 27')
    await ana.row('onerror=alert').waitFor()
    assert.equal(await ana.page.locator('.rpt-text img').count(), 0)
    await ana.slot('conversation-header').getByRole('button', { name: 'Search in this conversation' }).click()
    await ana.page.getByRole('searchbox', { name: 'Search in this conversation' }).fill('quart')
    const hit = ana.slot('hit').filter({ hasText: 'quarterly numbers 27' })
    await hit.locator('mark', { hasText: 'quart' }).first().waitFor()
    await hit.click()
    await ana.until(
      () =>
        document.activeElement?.textContent?.includes('quarterly numbers 27') === true &&
        document.activeElement.matches('[data-slot="message-row"]'),
    )
    await close()
  },

  async '29 a message of 4,000 characters can be sent; for 4,001, the reason for the refusal is shown'(t) {
    const { ana, ben, close } = await both(t)
    await ana.field.fill('x'.repeat(4001))
    await ana.slot('counter').getByText('1 character too many').waitFor()
    assert.equal(await ana.slot('send').isDisabled(), true)
    const emoji = `${'😀'.repeat(3999)}!`
    await ana.field.fill(emoji)
    await ana.slot('counter').getByText('0 characters left').waitFor()
    await ana.page.keyboard.press('Enter')
    await ben.row('😀😀').waitFor()
    await close()
  },

  async '28 Enter that confirms a word of an input method does not send'(t) {
    const { ana, close } = await both(t)
    await ana.field.focus()
    const session = await ana.context.newCDPSession(ana.page)
    await session.send('Input.imeSetComposition', { text: 'にほん', selectionStart: 3, selectionEnd: 3 })
    const before = await ana.slot('message-row').count()
    const wasPrevented = await ana.field.evaluate(
      (field) =>
        !field.dispatchEvent(
          new KeyboardEvent('keydown', {
            key: 'Enter',
            isComposing: true,
            keyCode: 229,
            bubbles: true,
            cancelable: true,
          }),
        ),
    )
    assert.equal(wasPrevented, false)
    await session.send('Input.insertText', { text: '日本 28' })
    assert.equal(await ana.slot('message-row').count(), before)
    await ana.page.keyboard.press('Enter')
    await ana.row('日本 28').waitFor()
    await close()
  },
}
