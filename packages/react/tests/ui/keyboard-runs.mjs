// Check 31: checks 1, 10, 14, 15, 21 and 23 to 26 without a mouse, and the shortcuts. Chromium and
// Firefox run the same checks. After each key, an element in view must have the focus and show it.
import { strict as assert } from 'node:assert'
import { drive } from './driver.mjs'
import { eventually } from './harness.mjs'

/** More controls than there are between any two places that these runs visit. */
const MAX_TABS = 40

const SENT = '[data-state="sent"], [data-state="delivered"], [data-state="read"]'

/** Returns a driver that presses keys and, after each of them, checks that the focus is shown. */
function keyboardOf(page) {
  const own = drive(page)
  const { keyboard } = page
  const isShown = () =>
    own.until(() => {
      const active = document.activeElement
      if (!active || active === document.body) return false
      const box = active.getBoundingClientRect()
      const isInView = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth
      // Rows show the focus at their bubble, fields at the box around them.
      const carriers = [
        active,
        active.querySelector('[data-slot="bubble"], [data-slot="system-message"]'),
        active.closest('.rpt-search, .rpt-find-field, .rpt-composer-box'),
      ]
      const hasRing = (one) => {
        const { outlineStyle, outlineWidth } = getComputedStyle(one)
        return outlineStyle !== 'none' && Number.parseFloat(outlineWidth) > 0
      }
      return isInView && carriers.some((one) => one && hasRing(one))
    })
  const press = async (...keys) => {
    const key = keys.pop()
    for (const held of keys) await keyboard.down(held)
    await keyboard.press(key)
    for (const held of keys.reverse()) await keyboard.up(held)
    await isShown()
  }
  return {
    ...own,
    press,
    write: async (text) => {
      await keyboard.type(text)
      await isShown()
    },
    has: (selector) => own.until((one) => document.activeElement?.matches(one) === true, selector),
    /** Presses Tab until an element that matches has the focus. */
    async tabTo(selector, ...held) {
      for (let i = 0; i < MAX_TABS; i++) {
        await press(...held, 'Tab')
        if (await own.evaluate((one) => document.activeElement.matches(one), selector)) return
      }
      assert.fail(`Tab does not lead to ${selector}`)
    },
    /** Moves the focus from the composer to the message with the tab stop. */
    async toRows() {
      await press('Shift', 'F6')
      await own.until(() => document.activeElement?.matches('[data-slot="message-row"]') === true)
    },
    /** Presses F6 until the focus is in the list, and ↓ until it is on this conversation. */
    async toItem(selector) {
      const isAt = (one) => own.evaluate((wanted) => document.activeElement.matches(wanted), one)
      for (let i = 0; i < 3 && !(await isAt('[data-slot="conversation-link"]')); i++) await press('F6')
      await press('Home')
      for (let i = 0; i < MAX_TABS && !(await isAt(selector)); i++) await press('ArrowDown')
      assert.ok(await isAt(selector), `no key leads to ${selector}`)
    },
    /** Presses → inside a row until an element that matches has the focus. */
    async toControl(selector) {
      const isThere = () => own.evaluate((one) => document.activeElement.matches(one), selector)
      for (let i = 0; i < MAX_TABS && !(await isThere()); i++) await press('ArrowRight')
      assert.ok(await isThere(), `→ does not lead to ${selector}`)
    },
    /** Presses ↑ or ↓ until the focused row contains the text. */
    async toRow(text, key = 'ArrowUp') {
      for (let i = 0; i < MAX_TABS; i++) {
        if (await own.evaluate((wanted) => document.activeElement.textContent.includes(wanted), text)) return
        await press(key)
      }
      assert.fail(`${key} does not lead to “${text}”`)
    },
  }
}

/** Runs checks 21, 1, 23, 25 and 24. Ana's page must show her list. */
async function writes(t, me) {
  const ben = t.server.user('ben')
  const conversation = await ben.conversationWith('ana')
  const latest = (limit = 5) => ben.call('GET', `/messages?conversation_id=${conversation}&limit=${limit}`)

  // 21: a person is found.
  await me.press('Control', 'k')
  await me.has('[role="combobox"]')
  await me.write('be')
  await me.appears('[role="option"] mark')
  await me.press('Enter')
  await me.has('[data-slot="field"]')

  // 1: a message is written, and a reply to it is begun and cancelled.
  await me.write('by keyboard 31')
  await me.press('Enter')
  await me.shows('by keyboard 31', SENT)
  assert.equal((await latest()).filter(({ content }) => content === 'by keyboard 31').length, 1)
  await me.toRows()
  await me.press('r')
  await me.has('[data-slot="field"]')
  await me.appears('[data-slot="strip"][data-kind="reply"]')
  await me.press('Escape')
  await me.disappears('[data-slot="strip"]')

  // 23: the message is edited, its history is shown, and a conflict requires a choice.
  await me.press('ArrowUp')
  await me.appears('[data-slot="strip"][data-kind="edit"]')
  await me.write(' edited')
  await me.press('Enter')
  await me.shows('by keyboard 31 edited', '.rpt-edited')
  await me.toRows()
  await me.toControl('.rpt-edited')
  await me.press('Enter')
  await me.reads('[data-slot="dialog"]', 'by keyboard 31')
  await me.press('Escape')
  await me.disappears('[data-slot="dialog"]')
  await me.has('.rpt-edited')
  await me.press('Escape')
  await me.has('[data-slot="message-row"]')
  await me.press('e')
  await me.has('[data-slot="field"]')
  await me.write(' here')
  const edited = (await latest()).find(({ content }) => content === 'by keyboard 31 edited')
  await t.server.user('ana').call('PATCH', `/messages/${edited.id}`, { content: 'by keyboard 31 elsewhere' })
  await me.shows('by keyboard 31 elsewhere')
  await me.press('Enter')
  await me.reads('[data-slot="dialog"]', 'by keyboard 31 elsewhere')
  await me.tabTo('[data-slot="dialog"] [data-kind="primary"]')
  await me.press('Enter')
  await me.shows('by keyboard 31 edited here', '.rpt-edited')

  // 25: a reaction is added and removed.
  await me.toRows()
  await me.write('+')
  await me.has('[data-slot="quick-reactions"] [role="menuitemcheckbox"]')
  await me.press('Enter')
  await me.shows('by keyboard 31 edited here', '.rpt-reaction[aria-pressed="true"]')
  await me.has('[data-slot="message-row"]')
  await me.toControl('.rpt-reaction')
  await me.press('Enter')
  await me.until(
    (text) =>
      [...document.querySelectorAll('[data-slot="message-row"]')]
        .find((row) => row.textContent.includes(text))
        .querySelector('.rpt-reaction') === null,
    'by keyboard 31 edited here',
  )

  // 24: the message is deleted.
  await me.has('[data-slot="message-row"]')
  await me.press('Delete')
  await me.appears('[data-slot="dialog"]')
  await me.tabTo('[data-slot="dialog"] [data-kind="danger"]')
  await me.press('Enter')
  await me.until(() => !document.querySelector('[data-slot="rows"]').textContent.includes('by keyboard 31 edited'))
}

async function reads(t, me) {
  const ben = t.server.user('ben')
  const ana = t.server.user('ana')
  const conversation = await ben.conversationWith('ana')
  for (let i = 1; i <= 4; i++) await ben.send(conversation, `tall 31-${i} ${'word '.repeat(300)}`)
  await me.shows('tall 31-4')

  // 10: new messages do not move the reader, and the pill leads to the first of them.
  await me.press('End')
  await me.toRow('tall 31-2')
  await me.until(() => document.querySelector('[data-slot="scroller"]').scrollTop < -200)
  for (let i = 1; i <= 10; i++) await ben.send(conversation, `news 31-${i}.`)
  await me.reads('[data-slot="pill"]', '10 new messages')
  await me.tabTo('[data-slot="pill"]')
  await me.press('Enter')
  await me.until(() => {
    const port = document.querySelector('[data-slot="scroller"]').getBoundingClientRect()
    const row = [...document.querySelectorAll('[data-slot="message-row"]')].find((one) =>
      one.textContent.includes('news 31-1.'),
    )
    const box = row?.getBoundingClientRect()
    return box !== undefined && box.top >= port.top && box.bottom <= port.bottom
  })

  // 15: the conversation is marked as unread from a message on.
  await me.press('F6')
  await me.has('[data-slot="field"]')
  await me.toRows()
  await me.press('End')
  await me.toRow('news 31-10.')
  const isUnread = async () => (await ana.call('GET', `/conversations/${conversation}`)).unread_count > 0
  await eventually(async () => !(await isUnread()), 'the news to be read')
  await me.press('u')
  await eventually(isUnread, 'the conversation to be unread')
  await me.appears('[data-slot="conversation"] [data-slot="unread-badge"]')
}

async function tidies(t, me) {
  const ana = t.server.user('ana')
  const withAda = await ana.conversationWith('ada')
  const withBen = await ana.conversationWith('ben')
  await t.server.user('ada').send(withAda, 'for the list 31')
  await me.reads('.rpt-item-preview', 'for the list 31')
  const first = () => document.querySelector('[data-slot="conversation-link"]').dataset.conversation

  // 26: a conversation is archived, restored with "Undo", and pinned.
  const link = `[data-conversation="${withAda}"]`
  await me.toItem(link)
  await me.press('Delete')
  await me.disappears(link)
  await me.has('[data-slot="conversation-link"]')
  await me.tabTo('.rpt-toast-action')
  await me.press('Enter')
  await me.appears(link)
  await me.toItem(link)
  // The next stop is the menu of the same conversation.
  await me.press('Tab')
  await me.press('Enter')
  await me.has('[role="menuitem"]')
  await me.press('Enter')
  await eventually(async () => (await ana.call('GET', `/conversations/${withAda}`)).is_pinned, 'the pin')
  await t.server.user('ben').send(withBen, 'newer 31')
  await me.reads('.rpt-item-preview', 'newer 31')
  await me.press('F6')
  await eventually(async () => (await me.evaluate(first)) === withAda, 'the pinned conversation to be on top')
  await ana.call('PATCH', `/conversations/${withAda}`, { is_pinned: false })
}

/** Runs the checks without a mouse. `open` opens `/demo/` with a query. */
export async function withoutMouse(t, { page, open }) {
  const me = keyboardOf(page)
  const conversation = await t.server.user('ana').conversationWith('ben')
  for (const name of ['ana', 'ben']) await t.server.user(name).call('POST', `/conversations/${conversation}/read`, {})
  await open('?as=ana')
  await me.appears('[data-slot="conversation-link"]')
  await me.disappears('[data-slot="connection-banner"]')
  await writes(t, me)
  await reads(t, me)
  await tidies(t, me)

  // 14: a link leads to a message, which receives the focus. One key leads to the newest message.
  const old = (await t.server.user('ana').call('GET', `/messages?conversation_id=${conversation}&limit=30`)).find(
    ({ content }) => content.startsWith('tall 31-1'),
  )
  await open(`?as=ana&c=${conversation}&m=${old.id}`)
  await me.until((id) => document.activeElement?.dataset?.id === id, old.id)
  await me.press('End')
  await me.toRow('newer 31')
}

/** Checks the shortcuts that work anywhere in the chat, on the page of Sue. */
export async function shortcuts(t, { page, open }) {
  const me = keyboardOf(page)
  const sue = t.server.user('sue')
  const ids = {}
  for (const other of ['ana', 'ben', 'zoe']) {
    ids[other] = await sue.conversationWith(other)
    await t.server.user(other).send(ids[other], `for the shortcuts from ${other}`)
    await sue.call('POST', `/conversations/${ids[other]}/read`, {})
  }
  await open(`?as=sue&c=${ids.zoe}`)
  const opened = (id) =>
    me.until((wanted) => document.querySelector('[aria-current="page"]')?.dataset.conversation === wanted, id)
  await opened(ids.zoe)
  await me.disappears('[data-slot="connection-banner"]')
  const order = await me.evaluate(() =>
    [...document.querySelectorAll('[data-slot="conversation-link"]')].map((link) => link.dataset.conversation),
  )
  const at = order.indexOf(ids.zoe)
  const [by, back] = at + 1 < order.length ? ['ArrowDown', 'ArrowUp'] : ['ArrowUp', 'ArrowDown']
  // The focus is in the empty composer, where ↑ alone would edit the last message.
  await me.has('[data-slot="field"]')
  await me.press('Alt', by)
  await opened(order[by === 'ArrowDown' ? at + 1 : at - 1])
  await me.has('[data-slot="field"]')
  await me.press('Alt', back)
  await opened(ids.zoe)
  assert.equal(await me.evaluate(() => document.querySelector('[data-slot="strip"]')), null)
  // With Shift, the shortcut opens the unread conversation, wherever it is in the list.
  await t.server.user('ben').send(ids.ben, 'unread for the shortcuts')
  await me.appears(`[data-slot="conversation"][data-unread] [data-conversation="${ids.ben}"]`)
  await me.has('[data-slot="field"]')
  await me.press('Alt', 'Shift', 'ArrowUp')
  await opened(ids.ben)

  await me.has('[data-slot="field"]')
  await me.press('Control', 'Shift', 'F')
  await me.has('[data-slot="search"]')
  await me.write('be')
  await me.reads('[data-slot="search-results"]', 'Ben Brandt')
  await me.press('Escape')
  await me.appears('[data-slot="conversation-link"]')
  await me.press('Control', '/')
  await me.reads('[data-slot="dialog"]', 'Search messages')
  // While the dialog is open, the shortcuts have no effect.
  await me.press('Alt', 'ArrowDown')
  await me.press('Escape')
  await me.disappears('[data-slot="dialog"]')
  await opened(ids.ben)
}
