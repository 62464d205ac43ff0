import { expect, test } from 'vitest'
import { FakeChannels, FakeLocks } from '../test/tabs'
import { Tabs, type TabMessage } from './tabs'
import { FakeClock, FakePage, settled } from './testing'

/** Creates a browser that can open tabs. */
function browser() {
  const clock = new FakeClock()
  const locks = new FakeLocks()
  const channels = new FakeChannels()
  const open = async ({ isVisible = true } = {}) => {
    const page = new FakePage()
    if (!isVisible) page.set({ isVisible: false })
    const roles: string[] = []
    const messages: TabMessage[] = []
    const channel = channels.open()
    const tabs = new Tabs({
      name: 'rapport:me',
      clock,
      page,
      locks,
      openChannel: () => channel,
      onLead: () => roles.push('lead'),
      onFollow: () => roles.push('follow'),
      onMessage: (message) => messages.push(message),
    })
    tabs.start()
    await settled()
    return { tabs, page, roles, messages, channel }
  }
  return { clock, channels, open }
}

test('the first tab leads, and the others follow and announce themselves', async () => {
  const { open } = browser()
  const [first, second] = [await open(), await open()]
  expect(first.tabs.leads).toBe(true)
  expect(second.tabs.leads).toBe(false)
  expect(first.messages).toEqual([{ type: 'hello' }])
})

test('when the leading tab is closed, another one takes over', async () => {
  const { open } = browser()
  const [first, second] = [await open(), await open()]
  first.tabs.stop()
  await settled()
  expect(second.tabs.leads).toBe(true)
  expect(second.roles).toEqual(['follow', 'lead'])
})

test('a visible tab takes over from a hidden one', async () => {
  const { open } = browser()
  const first = await open()
  first.page.set({ isVisible: false })
  const second = await open()
  await settled()
  expect([first.tabs.leads, second.tabs.leads]).toEqual([false, true])
  expect(first.roles.at(-1)).toBe('follow')
})

test('a visible tab does not take over from another visible tab', async () => {
  const { clock, open } = browser()
  const [first, second] = [await open(), await open()]
  await clock.advance(120_000)
  expect([first.tabs.leads, second.tabs.leads]).toEqual([true, false])
})

test('a hidden tab that was opened later follows', async () => {
  const { clock, open } = browser()
  const first = await open({ isVisible: false })
  const second = await open({ isVisible: false })
  await clock.advance(120_000)
  expect([first.tabs.leads, second.tabs.leads]).toEqual([true, false])
})

test('a frozen leading tab is replaced after 15 seconds of silence', async () => {
  const { clock, channels, open } = browser()
  const first = await open()
  const second = await open()
  // A frozen tab keeps its lock and does not respond.
  channels.freeze(first.channel)
  await clock.advance(31_000)
  expect(second.tabs.leads).toBe(true)
  expect(first.tabs.leads).toBe(false)
})

test('tabs that do not share a connection send each other only sign-outs', async () => {
  const channels = new FakeChannels()
  const open = () => {
    const messages: TabMessage[] = []
    const tabs = new Tabs({
      name: 'rapport:me',
      clock: new FakeClock(),
      page: new FakePage(),
      locks: null,
      openChannel: channels.open,
      onLead: () => {},
      onFollow: () => {},
      onMessage: (message) => messages.push(message),
    })
    tabs.start()
    return { tabs, messages }
  }
  const [first, second] = [open(), open()]
  first.tabs.post({ type: 'done', key: 'key1' })
  first.tabs.post({ type: 'sign_out' })
  await settled()
  expect([first.tabs.leads, second.tabs.leads]).toEqual([true, true])
  expect(second.messages).toEqual([{ type: 'sign_out' }])
})

test('a tab that meets another version opens its own connection', async () => {
  const { channels, open } = browser()
  await open()
  const second = await open()
  channels.open().postMessage({ version: 99, message: { type: 'hello' } })
  await settled()
  expect(second.tabs.leads).toBe(true)
})
