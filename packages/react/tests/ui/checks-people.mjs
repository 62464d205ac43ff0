// Checks of conversations, people, presence and typing.
import { strict as assert } from 'node:assert'
import { eventually, openWindow } from './harness.mjs'
import { both } from './checks-messages.mjs'
import { shortcuts } from './keyboard-runs.mjs'
import { fakeAppBadge, readElsewhere } from './shared-runs.mjs'

export const checks = {
  async '17 when a message is read on one device, both devices clear the list, the top bar, the title and the badge'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    await server.user('ana').call('POST', `/conversations/${conversation}/read`, {})
    const devices = [await browser.newContext(), await browser.newContext()]
    const [here, there] = await Promise.all(devices.map((context) => context.newPage()))
    for (const page of [here, there]) {
      await page.addInitScript(fakeAppBadge)
      await page.goto(`${server.url}/demo/?as=ana`)
    }
    await readElsewhere({ server, here, there, read: () => there.click(`[data-conversation="${conversation}"]`) })
    await Promise.all(devices.map((context) => context.close()))
  },

  async '18 typing is shown in the header, the list and the conversation until the message arrives'(t) {
    const { ana, ben, close } = await both(t)
    await ben.field.pressSequentially('typing')
    await ana.page.locator('[data-slot="header-status"][data-typing]').waitFor()
    await ana.page.locator('[data-slot="typing-indicator"][data-visible]').waitFor()
    await ana.page.locator('.rpt-item-preview', { hasText: 'typing…' }).waitFor()
    await ben.page.keyboard.press('Enter')
    await ana.page.locator('[data-slot="typing-indicator"][data-visible]').waitFor({ state: 'detached' })
    await close()
  },

  async '19 a user is away after five minutes without input, online after a key, and offline after closing the last window'(t) {
    const { ana, ben, close } = await both(t, { clock: true })
    const status = (text) => ana.page.locator('[data-slot="header-status"]', { hasText: text })
    await status('Online').waitFor()
    await ben.page.evaluate(() => window.advance(4 * 60_000))
    await ben.page.evaluate(() => window.advance(60_000 + 1000))
    await status('Away').waitFor()
    await ben.page.keyboard.press('Shift')
    await status('Online').waitFor()
    const from = Date.now()
    await ben.page.close()
    await status('Last seen').waitFor()
    const after = Date.now() - from
    assert.ok(after <= 12_000, `offline after ${after} ms`)
    await close()
  },

  async '19 users are not shown as offline to themselves while the page opens'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const context = await browser.newContext()
    const page = await context.newPage()
    // Records every status that is shown on the picture in the button of the presence menu.
    await page.addInitScript(() => {
      window.statuses = new Set()
      const look = () => {
        const button = document.querySelector('[data-slot="presence-menu"] button')
        if (button) window.statuses.add(button.querySelector('[data-slot="presence"]')?.dataset.status ?? 'none')
      }
      new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true })
    })
    // Simulates a server that has not noticed the page yet when it responds.
    await page.route(/\/presence\?/, async (route) => {
      const response = await route.fetch()
      const rows = (await response.json()).map((row) => ({ ...row, status: 'offline' }))
      await route.fulfill({ response, json: rows })
    })
    let connect = () => {}
    await page.routeWebSocket(/realtime/, (socket) => {
      connect = () => socket.connectToServer()
    })
    await page.goto(`${server.url}/demo/?as=ana&c=${conversation}`)
    const isOnline = () => page.locator('[data-slot="presence-menu"] [data-status="online"]').waitFor()
    await isOnline()
    connect()
    await page.waitForFunction(() => document.querySelector('[data-slot="connection-banner"]') === null)
    await isOnline()
    const statuses = await page.evaluate(() => [...window.statuses])
    assert.ok(!statuses.includes('offline'), `shown: ${statuses.join(', ')}`)
    await context.close()
  },

  async '20 the status busy stays after a reload and applies in other windows'(t) {
    const { ana, ben, close } = await both(t)
    await ben.slot('presence-menu').locator('button').click()
    await ben.page.getByRole('menuitemradio', { name: 'Busy' }).click()
    await ana.page.locator('[data-slot="header-status"]', { hasText: 'Busy' }).waitFor()
    await ben.page.reload()
    await ben.slot('presence-menu').getByRole('button', { name: /Busy/ }).waitFor()
    await ben.slot('presence-menu').locator('button').click()
    await ben.page.getByRole('menuitemradio', { name: 'Automatic' }).click()
    await ana.page.locator('[data-slot="header-status"]', { hasText: 'Online' }).waitFor()
    await close()
  },

  async "21 by keyboard, a user finds people, but only those in the user's teams"({ browser, server }) {
    const ana = await openWindow(browser, server, 'ana')
    await ana.slot('new-message').waitFor()
    await ana.page.keyboard.press('Control+k')
    await ana.page.getByRole('combobox').waitFor()
    await ana.page.keyboard.type('zoe')
    await ana.page.getByText('Nobody in your teams matches “zoe”.').waitFor()
    await ana.page.getByRole('combobox').fill('be')
    await ana.page.getByRole('option', { name: /Ben Brandt/ }).waitFor()
    await ana.page.keyboard.press('Enter')
    await ana.until(() => document.activeElement?.matches('[data-slot="field"]') === true)
    await ana.context.close()
    const sue = await openWindow(browser, server, 'sue')
    await sue.slot('new-message').click()
    await sue.page.getByRole('combobox').fill('zo')
    await sue.page.getByRole('option', { name: /Zoe Zhang/ }).waitFor()
    await sue.context.close()
  },

  async '22 a blocked person sees only that they cannot write'({ browser, server }) {
    const [ada, ben] = [server.user('ada'), server.user('ben')]
    const conversation = await ada.conversationWith('ben')
    await ada.call('POST', '/blocks', { user_id: ben.id })
    const window = await openWindow(browser, server, 'ben', { path: `&c=${conversation}` })
    await window.slot('cannot-send').getByText('You cannot message this person.').waitFor()
    assert.equal(await window.field.count(), 0)
    await ada.call('DELETE', `/blocks/${ben.id}`)
    await window.context.close()
  },

  async '26 archiving can be undone, a message restores the conversation, a pinned one stays on top'({ browser, server }) {
    const [ada, ben, sue] = ['ada', 'ben', 'sue'].map((name) => server.user(name))
    const withBen = await ada.conversationWith('ben')
    const withAna = await ada.conversationWith('ana')
    await ada.send(withAna, 'one 26')
    await ben.send(withBen, 'two 26')
    assert.ok(sue)
    const window = await openWindow(browser, server, 'ada')
    const link = window.page.locator(`[data-conversation="${withBen}"]`)
    const item = window.page.locator(`[data-slot="conversation"]:has([data-conversation="${withBen}"])`)
    const menu = async (name) => {
      await item.hover()
      await item.locator('.rpt-item-menu').click()
      await window.page.getByRole('menuitem', { name, exact: true }).click()
    }
    // The window shows each change before the server has stored it. Ben's message must be sent
    // after the server has stored the last change.
    const isArchived = (is) =>
      eventually(async () => (await ada.call('GET', `/conversations/${withBen}`)).is_archived === is, 'the server to know')
    await link.waitFor()
    await menu('Archive')
    await link.waitFor({ state: 'detached' })
    await isArchived(true)
    await window.slot('toasts').getByRole('button', { name: 'Undo' }).click()
    await link.waitFor()
    await isArchived(false)
    await menu('Archive')
    await link.waitFor({ state: 'detached' })
    await isArchived(true)
    await ben.send(withBen, 'back again 26')
    await link.waitFor()
    await menu('Pin')
    await window.page.mouse.move(900, 600)
    await server.user('ana').send(withAna, 'newer 26')
    await window.page.locator('.rpt-item-preview', { hasText: 'newer 26' }).waitFor()
    assert.equal(await window.slot('conversation-link').first().getAttribute('data-conversation'), withBen)
    await ada.call('PATCH', `/conversations/${withBen}`, { is_pinned: false })
    await window.context.close()
  },

  async '7 one socket serves five windows, and another window takes over when its owner closes'({ browser, server }) {
    const context = await browser.newContext()
    const sockets = []
    const pages = []
    for (let i = 0; i < 5; i++) {
      const page = await context.newPage()
      page.on('websocket', (socket) => sockets.push({ page, socket }))
      await page.goto(`${server.url}/demo/?as=zoe`)
      await page.locator('[data-slot="new-message"]').waitFor()
      pages.push(page)
    }
    const open = () =>
      new Set(sockets.filter(({ page, socket }) => !page.isClosed() && !socket.isClosed()).map(({ page }) => page))
    await eventually(() => open().size === 1, 'one socket')
    const [leader] = open()
    await leader.close()
    await eventually(() => open().size === 1, 'another window to take over')
    const conversation = await server.user('sue').conversationWith('zoe')
    await server.user('sue').send(conversation, 'to all windows 7')
    for (const page of pages.filter((one) => !one.isClosed()))
      await page.locator('.rpt-item-preview', { hasText: 'to all windows 7' }).waitFor({ timeout: 20_000 })
    await context.close()
  },

  async '31 the shortcuts open conversations, the search and the list of shortcuts'({ browser, server }) {
    const page = await browser.newPage()
    await shortcuts({ server }, { page, open: (query) => page.goto(`${server.url}/demo/${query}`) })
    await page.close()
  },

  async '31 on a phone, Ctrl+Shift+F leads from a conversation to the search'({ browser, server }) {
    const conversation = await server.user('ana').conversationWith('ben')
    const viewport = { width: 390, height: 844 }
    const ana = await openWindow(browser, server, 'ana', { path: `&c=${conversation}`, viewport })
    await ana.field.waitFor()
    await ana.page.keyboard.press('Control+Shift+F')
    await ana.until(() => document.activeElement?.matches('[data-slot="search"]') === true)
    await ana.slot('conversation-link').first().waitFor()
    await ana.context.close()
  },
}
