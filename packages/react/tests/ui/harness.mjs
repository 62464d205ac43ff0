// Starts a Rapport server with five users and the built page in front of it, and provides helpers
// for browser windows.
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { servePage } from './page-server.mjs'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..', '..', '..')
const BASE = '/api/supabase/user-chat'

/** The time limit of a step, for a busy machine. A step ends as soon as its condition is met. */
export const PATIENCE_MS = 15_000

/** Starts the server and the page. `close` stops both. */
export async function startServer({
  binary = process.env.RAPPORT_BIN ?? join(root, 'target', 'debug', 'rapport'),
  folder = join(root, 'demo', 'dist'),
} = {}) {
  if (!existsSync(binary))
    throw new Error(`${binary} does not exist. Build it with \`cargo build\`, or set RAPPORT_BIN.`)
  const temporary = await mkdtemp(join(tmpdir(), 'rapport-ui-'))
  // When started by root, PostgreSQL runs as another user, who must be able to reach its files.
  await chmod(temporary, 0o711)
  const port = await freePort()
  let running = await spawnServer({ binary, temporary, port })
  // Stops the server even if a script throws before it calls `close`.
  process.once('exit', () => running.child.kill('SIGTERM'))
  const page = await servePage({ folder, upstream: port })
  return {
    url: page.url,
    get env() {
      return running.env
    },
    log: () => running.log.join(''),
    cut: page.cut,
    restore: page.restore,
    requestsTo: page.requestsTo,
    /** Kills the server, like a crash, so that it cannot clean up. Its database stops with it. */
    async kill() {
      running.child.kill('SIGKILL')
      await running.exited
    },
    /** Starts the server again, with the same port, database and keys. */
    async restart() {
      running = await spawnServer({ binary, temporary, port })
    },
    user: (name) => userOf(running.env, name),
    sql: (text) => query(running.env.DB_URL, text),
    async close() {
      await page.close()
      running.child.kill('SIGTERM')
      await running.exited
      await rm(temporary, { recursive: true, force: true })
    },
  }
}

/** Returns an unused port. The server uses the same port when it is restarted. */
async function freePort() {
  const listener = createServer()
  await new Promise((done) => listener.listen(0, '127.0.0.1', done))
  const { port } = listener.address()
  await new Promise((done) => listener.close(done))
  return port
}

/** Starts the server process. Resolves when the server is ready. */
async function spawnServer({ binary, temporary, port }) {
  const envFile = join(temporary, 'env')
  await rm(envFile, { force: true })
  const log = []
  const child = spawn(
    binary,
    ['dev', '--data-dir', join(temporary, 'data'), '--port', String(port), '--env-file', envFile],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      // The checks search more often than a user does.
      env: { ...process.env, RAPPORT_CHAT_LIMITS_SEARCH_PER_MINUTE: '600' },
    },
  )
  const exited = new Promise((done) => child.once('exit', done))
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data) => (log.push(String(data)), log.length > 400 && log.shift()))
  const env = await readEnv(envFile, exited, log)
  return { child, exited, log, env }
}

/** Reads the file that the server writes when it is ready. */
async function readEnv(path, exited, log) {
  let isGone = false
  void exited.then(() => (isGone = true))
  for (;;) {
    if (isGone) throw new Error(`the server ended before it was ready:\n${log.join('')}`)
    if (existsSync(path)) break
    await new Promise((done) => setTimeout(done, 100))
  }
  const text = await readFile(path, 'utf8')
  return Object.fromEntries([...text.matchAll(/^([A-Z_]+)=["']?(.*?)["']?$/gm)].map(([, key, value]) => [key, value]))
}

async function query(url, text) {
  const psql =
    [
      '/usr/lib/postgresql/15/bin/psql',
      '/usr/lib/postgresql/16/bin/psql',
      '/usr/lib/postgresql/17/bin/psql',
      '/usr/lib/postgresql/18/bin/psql',
    ].find(existsSync) ?? 'psql'
  const { stdout } = await run(psql, ['-X', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-c', text, url])
  return stdout.trim()
}

/** The number of messages sent so far, from which each message gets a unique id. */
let number = 0

/**
 * Calls the routes as one of the users. A request that is refused with 429 is repeated. Every other
 * status outside 2xx is an error.
 */
function userOf(env, name) {
  const id = env[`USER_ID_${name.toUpperCase()}`]
  const token = env[`USER_TOKEN_${name.toUpperCase()}`]
  const call = async (method, path, body) => {
    for (;;) {
      const response = await fetch(`${env.API_URL}${BASE}${path}`, {
        method,
        headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
        ...(body && { body: JSON.stringify(body) }),
      })
      if (response.status === 429) {
        await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get('retry-after') ?? 1)))
        continue
      }
      const text = await response.text()
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
      return text ? JSON.parse(text) : null
    }
  }
  return {
    id,
    call,
    conversationWith: async (other) =>
      (await call('POST', '/conversations', { other_user_id: env[`USER_ID_${other.toUpperCase()}`] })).id,
    send: (conversationId, content, rest = {}) =>
      call('POST', '/messages', {
        conversation_id: conversationId,
        content,
        client_message_id: `check-${process.pid}-${++number}`,
        ...rest,
      }),
  }
}

/** Opens a browser window for a user. `problems` collects the errors and warnings of the page. */
export async function openWindow(
  browser,
  server,
  name,
  { path = '', viewport = { width: 1000, height: 800 }, clock = false, ...options } = {},
) {
  const context = await browser.newContext({ viewport, ...options })
  if (clock) await context.addInitScript(movableClock)
  const page = await context.newPage()
  const problems = []
  page.on('console', (message) => {
    // Some checks make requests fail. The browser's reports of these requests are ignored.
    if (
      ['error', 'warning'].includes(message.type()) &&
      !/Failed to load resource|WebSocket connection|net::ERR/.test(message.text())
    )
      problems.push(message.text())
  })
  page.on('pageerror', (error) => problems.push(error.message))
  page.setDefaultTimeout(PATIENCE_MS)
  await page.goto(`${server.url}/demo/?as=${name}${path}`)
  return { page, context, problems, ...actions(page) }
}

const row = (text) => `[data-slot="message-row"]:has-text(${JSON.stringify(text)})`

function actions(page) {
  return {
    field: page.locator('[data-slot="field"]'),
    row: (text) => page.locator(row(text)),
    slot: (name) => page.locator(`[data-slot="${name}"]`),
    /** Opens the conversation with this person from the list. */
    async openChat(person) {
      await page.locator(`[data-slot="conversation-link"]:has-text(${JSON.stringify(person)})`).click()
      await page.locator('[data-slot="field"]').waitFor()
    },
    async send(text) {
      await page.locator('[data-slot="field"]').fill(text)
      await page.keyboard.press('Enter')
    },
    async texts() {
      return page.locator('[data-slot="message-row"] .rpt-text').evaluateAll((all) =>
        all.map((one) =>
          [...one.childNodes]
            .filter((node) => !(node instanceof Element && node.matches('[data-slot="meta"]')))
            .map((node) => node.textContent)
            .join(''),
        ),
      )
    },
    /** Waits until the function returns a true value. It runs in the page. */
    until: (check, argument) => page.waitForFunction(check, argument, { timeout: PATIENCE_MS, polling: 50 }),
    /** Returns the distance of a row from the top of the viewport. */
    topOf: (text) =>
      page
        .locator(row(text))
        .last()
        .evaluate((element) => element.getBoundingClientRect().top),
    position: () => page.locator('[data-slot="scroller"]').evaluate((element) => element.scrollTop),
    wheel: async (dy) => {
      const box = await page.locator('[data-slot="scroller"]').boundingBox()
      await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
      await page.mouse.wheel(0, dy)
    },
  }
}

/** Waits for two frames, after which layout and observers have run. */
export const settle = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))

/**
 * Runs in the page before its own scripts. It adds `advance(ms)`, which moves the clock and calls
 * the timers that are due. Only timers of at least a minute are affected; all others run as usual.
 */
export const movableClock = () => {
  const { setTimeout: later, clearTimeout: cancel } = window
  const long = new Map()
  let moved = 0
  const real = Date.now
  Date.now = () => real() + moved
  window.setTimeout = (run, after = 0, ...rest) => {
    const id = later(() => (long.delete(id), run(...rest)), after)
    if (after >= 60_000) long.set(id, { at: Date.now() + after, run: () => run(...rest) })
    return id
  }
  window.clearTimeout = (id) => (long.delete(id), cancel(id))
  window.advance = (ms) => {
    moved += ms
    for (const [id, { at, run }] of long) {
      if (at > Date.now()) continue
      window.clearTimeout(id)
      run()
    }
  }
}

/** Waits until the function returns a true value. It does not run in the page. */
export async function eventually(check, what) {
  const until = Date.now() + PATIENCE_MS
  for (;;) {
    const result = await check()
    if (result) return result
    if (Date.now() > until) throw new Error(`timed out: ${what}`)
    await new Promise((done) => setTimeout(done, 50))
  }
}
