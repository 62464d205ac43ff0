// Sending, receiving, ticks, outages.
import { strict as assert } from 'node:assert'
import { eventually, openWindow } from './harness.mjs'

/** Both windows on the conversation of Ana and Ben. */
export async function both(t, options = {}) {
  const { browser, server } = t
  const conversation = await server.user('ana').conversationWith('ben')
  const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}`, ...options })
  const ben = await openWindow(browser, server, 'ben', { path: `&c=${conversation}`, ...options })
  await Promise.all([ana.field.waitFor(), ben.field.waitFor()])
  await Promise.all([isLive(ana), isLive(ben)])
  return { conversation, ana, ben, close: () => Promise.all([ana.context.close(), ben.context.close()]) }
}

/** No banner, and the list is loaded. */
export async function isLive(window) {
  await window.until(
    () => !document.querySelector('[data-slot="connection-banner"], [data-slot="message-list"] [data-slot="skeleton"]'),
  )
}

export const checks = {
  async '1 a message stands left within a frame and right within a second, once'(t) {
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

  async '2 the tick becomes filled as Ben receives and opens'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}` })
    await isLive(ana)
    await ana.send('tick 2, nobody there')
    const state = (text, wanted) => ana.row(text).locator(`[data-state="${wanted}"]`).waitFor()
    await state('tick 2, nobody there', 'sent')
    const ben = await openWindow(browser, server, 'ben')
    await ben.slot('conversation-link').first().waitFor()
    await isLive(ben)
    // Messages of one group show the state of the last one; an answer begins a new group.
    await server.user('ben').send(conversation, 'an answer 2')
    await ana.row('an answer 2').waitFor()
    await ana.send('tick 2, somebody there')
    await state('tick 2, somebody there', 'delivered')
    await ben.openChat('Ana')
    await state('tick 2, somebody there', 'read')
    await Promise.all([ana.context.close(), ben.context.close()])
  },

  async '3 thirty messages keep their order on both sides'(t) {
    const { ana, ben, close } = await both(t)
    for (let i = 1; i <= 30; i++) await ana.send(`quick ${i}.`)
    await ben.row('quick 30.').waitFor({ timeout: 40_000 })
    await ana.until(() => document.querySelectorAll('[data-status="pending"], [data-status="sending"]').length === 0)
    const expected = Array.from({ length: 30 }, (_, i) => `quick ${i + 1}.`)
    for (const window of [ana, ben])
      assert.deepEqual(
        (await window.texts()).filter((text) => text.startsWith('quick ')),
        expected,
      )
    assert.equal(await ana.page.locator('[data-status="failed"]').count(), 0)
    await close()
  },

  async '4 messages written without a network arrive after a reload, in order, once'(t) {
    const { ana, ben, close } = await both(t)
    await ana.context.setOffline(true)
    for (const text of ['offline 1.', 'offline 2.', 'offline 3.']) await ana.send(text)
    await ana.row('offline 3.').waitFor()
    // The outbox writes behind the key press; a reload in the same moment would be no user's.
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

  async '5 an outage shows a banner, keeps the draft, and nothing is missing afterwards'(t) {
    const { conversation, ana, ben, close } = await both(t)
    await ana.field.fill('a draft')
    t.server.cut()
    try {
      await ana.slot('connection-banner').waitFor()
      await t.server.user('ben').send(conversation, 'sent during the outage')
    } finally {
      t.server.restore()
    }
    await ana.row('sent during the outage').waitFor({ timeout: 40_000 })
    await ana.slot('connection-banner').waitFor({ state: 'detached' })
    assert.equal(await ana.field.inputValue(), 'a draft')
    await ana.field.fill('')
    await ben.row('sent during the outage').waitFor({ timeout: 40_000 })
    await close()
  },

  async '6 what happens during an outage is the same in both windows afterwards'(t) {
    const { conversation, ana, ben, close } = await both(t)
    const user = t.server.user('ben')
    const kept = await user.send(conversation, 'will be edited 6')
    const gone = await user.send(conversation, 'will be deleted 6')
    await ana.row('will be deleted 6').waitFor()
    await ana.context.setOffline(true)
    await user.call('PATCH', `/messages/${kept.id}`, { content: 'was edited 6' })
    await user.call('DELETE', `/messages/${gone.id}`)
    await user.call('POST', `/messages/${kept.id}/reactions`, { reaction: '🎉' })
    for (let i = 1; i <= 20; i++) await user.send(conversation, `missed ${i}.`)
    await ben.row('missed 20.').waitFor()
    await ana.context.setOffline(false)
    await ana.row('missed 20.').waitFor({ timeout: 40_000 })
    await ana.row('was edited 6').locator('[data-slot="reactions"]').waitFor()
    const last = async (window) =>
      (
        await window.page
          .locator('[data-slot="message-row"]')
          .evaluateAll((rows) => rows.map((row) => row.querySelector('.rpt-text')?.firstChild?.textContent ?? ''))
      ).slice(-21)
    assert.deepEqual(await last(ana), await last(ben))
    assert.equal(await ana.row('will be deleted 6').count(), 0)
    await close()
  },

  async '8 an expired token loses nothing and signs nobody out'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}&token_lifetime=5` })
    await isLive(ana)
    const refreshed = ana.page.waitForResponse(
      (response) =>
        response.url().includes('grant_type=refresh_token') || response.url().includes('grant_type=password'),
      { timeout: 40_000 },
    )
    await refreshed
    await ana.send('after the refresh 8')
    await eventually(
      async () =>
        (await server.user('ben').call('GET', `/messages?conversation_id=${conversation}&limit=5`)).some(
          ({ content }) => content === 'after the refresh 8',
        ),
      'the message',
    )
    await server.user('ben').send(conversation, 'an answer 8')
    await ana.row('an answer 8').waitFor({ timeout: 40_000 })
    assert.equal(await ana.page.locator('[data-kind="signed_out"]').count(), 0)
    await ana.context.close()
  },

  async '23 an edit appears on both sides with its history, and a conflicting one is asked about'(t) {
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
    // The other window edits while this one is editing.
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

  async '24 a deletion leaves a tombstone on both sides, quotes included'(t) {
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

  async '25 reactions by keyboard and from both sides agree'(t) {
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
    // Twice quickly: the last wish counts, and it is the one from before.
    await ben.row('react to this 25').locator('.rpt-reaction').dblclick()
    await Promise.all([count(ana, '2'), count(ben, '2')])
    await close()
  },

  async '27 search finds part of a word, marks it and leads there; markup stands as text'(t) {
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

  async '29 4,000 characters can be sent, 4,001 cannot and say why'(t) {
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

  async '28 Enter that confirms a word of an input method sends nothing'(t) {
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
