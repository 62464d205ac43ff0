// The client in a browser with several tabs: real locks, channels, storage and worker.

import { randomUUID } from 'node:crypto'
import { build } from 'esbuild'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { UserChatAPI } from '../src/api'
import type { ChatClient } from '../src/chat-client'
import type { createChatClient } from '../src/create'
import { PATIENCE_MS, startServer, type Server } from './server'

declare global {
  interface Window {
    createChatClient: typeof createChatClient
    client: ChatClient
    room: ReturnType<ChatClient['conversation']>
  }
}

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium'

const PAGE = `<!doctype html><title>Chat</title>
<script type="module">import { createChatClient } from '/test-client/index.js'; window.createChatClient = createChatClient</script>`

/** Another tab must take over within this time. */
const TAKEOVER_MS = 5_000

let server: Server
let browser: Browser
let context: BrowserContext
let scripts: Map<string, string>
let conversationId: string
let ben: UserChatAPI

beforeAll(async () => {
  const source = (name: string) => new URL(`../src/${name}`, import.meta.url).pathname
  const { outputFiles } = await build({
    entryPoints: [source('index.ts'), source('heartbeat-worker.ts')],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    outdir: '/',
    write: false,
  })
  scripts = new Map(outputFiles.map(({ path, text }) => [path, text]))
  server = await startServer()
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    // A page whose response comes from the test has no IP address, so Chromium treats it as a page
    // of another network.
    args: ['--no-sandbox', '--disable-features=LocalNetworkAccessChecks'],
  })
  ben = new UserChatAPI({
    baseUrl: `${server.env['API_URL']}/api/supabase/user-chat`,
    accessToken: async () => server.env['USER_TOKEN_BEN']!,
  })
  conversationId = (await ben.openConversation(server.env['USER_ID_ANA']!)).data!.id
}, PATIENCE_MS)

afterAll(async () => {
  await browser?.close()
  await server?.stop()
}, PATIENCE_MS)

beforeEach(async () => {
  context = await browser.newContext()
  // The pages have the server's origin, so that their requests need no CORS permission.
  await context.route('**/test-client/**', (route) => {
    const name = new URL(route.request().url()).pathname.replace('/test-client', '')
    const script = scripts.get(name)
    return script === undefined
      ? route.fulfill({ contentType: 'text/html', body: PAGE })
      : route.fulfill({ contentType: 'text/javascript', body: script })
  })
})
afterEach(() => context.close())

/** The number of open sockets by tab. */
const sockets = new Map<Page, number>()
const openSockets = () => [...sockets.values()].reduce((sum, count) => sum + count, 0)

async function openTab(tabs: 'shared' | 'each' = 'shared'): Promise<Page> {
  const page = await context.newPage()
  sockets.set(page, 0)
  page.on('websocket', (socket) => {
    sockets.set(page, (sockets.get(page) ?? 0) + 1)
    socket.on('close', () => sockets.set(page, (sockets.get(page) ?? 0) - 1))
  })
  page.on('close', () => sockets.delete(page))
  await page.goto(`${server.env['API_URL']}/test-client/page`)
  await startClient(page, tabs)
  return page
}

async function startClient(page: Page, tabs: 'shared' | 'each' = 'shared'): Promise<void> {
  const { API_URL, ANON_KEY, USER_ID_ANA, USER_TOKEN_ANA } = server.env
  await page.waitForFunction(() => window.createChatClient !== undefined)
  await page.evaluate(
    ([url, anonKey, userId, token, id, kind]) => {
      window.client = window.createChatClient({
        userId: userId!,
        socketUrl: `${url}/realtime/v1`,
        anonKey: anonKey!,
        accessToken: async () => token!,
        tabs: kind as 'shared' | 'each',
      })
      window.client.start()
      window.room = window.client.conversation(id!)
      window.room.open()
    },
    [API_URL, ANON_KEY, USER_ID_ANA, USER_TOKEN_ANA, conversationId, tabs],
  )
}

const isLive = (page: Page) => page.waitForFunction(() => window.client.getState().connection.status === 'live')
const shows = (page: Page, text: string) =>
  page.waitForFunction(
    (wanted) =>
      window.room
        .getTimeline()
        .messages.filter(({ content, state }) => content === wanted && state !== 'sending' && state !== 'pending')
        .length === 1,
    text,
  )
const leads = (page: Page) => page.evaluate(() => window.client.getState().isLeader)

async function sendFromBen(): Promise<string> {
  const content = randomUUID()
  const { error } = await ben.postMessage({ conversationId, content, clientMessageId: content })
  expect(error).toBeNull()
  return content
}

test(
  'five tabs have one socket, and another tab takes over when the leading tab is closed',
  async () => {
    const tabs: Page[] = []
    for (let index = 0; index < 5; index += 1) tabs.push(await openTab())
    await Promise.all(tabs.map(isLive))
    await expect.poll(openSockets).toBe(1)
    const first = await sendFromBen()
    await Promise.all(tabs.map((tab) => shows(tab, first)))

    const leading = await Promise.all(tabs.map(leads))
    expect(leading.filter(Boolean)).toHaveLength(1)
    const leader = tabs[leading.indexOf(true)]!
    const others = tabs.filter((tab) => tab !== leader)
    await leader.close()
    const second = await sendFromBen()
    await Promise.race([
      Promise.any(others.map((tab) => tab.waitForFunction(() => window.client.getState().isLeader))),
      rejectAfter(TAKEOVER_MS),
    ])
    await Promise.all(others.map((tab) => shows(tab, second)))
    await Promise.all(others.map(isLive))
    await expect.poll(openSockets).toBe(1)
  },
  PATIENCE_MS,
)

test(
  'a message that a page did not send is sent after a reload',
  async () => {
    const tab = await openTab()
    await isLive(tab)
    await tab.route(/\/messages(\?|$)/, (route) =>
      route.request().method() === 'POST' ? route.abort() : route.continue(),
    )
    const content = randomUUID()
    await tab.evaluate((text) => window.room.send(text), content)
    await tab.waitForFunction(() => window.client.getState().unsentCount === 1)
    await tab.waitForFunction(async () =>
      (await indexedDB.databases()).some(({ name }) => name?.startsWith('rapport:')),
    )
    await tab.unrouteAll()
    await tab.reload()
    await startClient(tab)
    await shows(tab, content)
  },
  PATIENCE_MS,
)

test.each(['shared', 'each'] as const)(
  'signing out deletes all data in storage and memory, in every tab: %s',
  async (kind) => {
    const [tab, other] = [await openTab(kind), await openTab(kind)]
    await Promise.all([isLive(tab), isLive(other)])
    await other.waitForFunction(() => window.room.getTimeline().messages.length > 0)
    await tab.evaluate(() => window.room.setDraft('unsent'))
    await tab.evaluate(() => window.client.signOut())
    await other.waitForFunction(() => window.client.getState().connection.status === 'idle')
    const held = () => [window.client.getState().conversations.length, window.room.getTimeline().messages.length]
    for (const page of [tab, other]) expect(await page.evaluate(held)).toEqual([0, 0])
    await other.evaluate(() => window.room.send('afterwards'))
    await expect.poll(() => tab.evaluate(async () => (await indexedDB.databases()).length)).toBe(0)
    await expect.poll(openSockets).toBe(0)
  },
  PATIENCE_MS,
)

function rejectAfter(ms: number): Promise<never> {
  return new Promise((_, reject) =>
    setTimeout(() => reject(new Error(`waited ${ms} ms for another tab to take over`)), ms),
  )
}
