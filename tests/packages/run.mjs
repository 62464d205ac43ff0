// Packs both packages as they are published, and installs them in a Vite app and a Next.js app.
// Then uses the chat of these apps in Chromium with a real server. Run `npm run build` first.
//
//   node tests/packages/run.mjs [vite] [next]
import assert from 'node:assert/strict'
import { execFile, spawn, spawnSync } from 'node:child_process'
import { cp, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { launchChromium } from '../../packages/react/tests/browser/browsers.mjs'
import { eventually, startServer } from '../../packages/react/tests/ui/harness.mjs'

const execute = promisify(execFile)
const here = import.meta.dirname
const root = join(here, '..', '..')

/** The apps, each with the folder of its modules. */
const APPS = { vite: { source: 'src' }, next: { source: 'app' } }

/** Timeout of a step in the page, long enough for a busy machine. */
const PATIENCE_MS = 30_000

const chosen = process.argv.slice(2)
const folder = await mkdtemp(join(tmpdir(), 'rapport-packages-'))
const server = await startServer()
const browser = await launchChromium()
let failed = 0
try {
  await pack()
  for (const [name, { source }] of Object.entries(APPS)) {
    if (chosen.length > 0 && !chosen.includes(name)) continue
    await check(name, source).then(
      () => console.log(`ok ${name}`),
      (error) => {
        failed += 1
        console.error(`not ok ${name}\n${error.stack}\n${error.stdout ?? ''}${error.stderr ?? ''}`)
      },
    )
  }
} finally {
  await browser.close()
  await server.close()
  await rm(folder, { recursive: true, force: true })
}
process.exitCode = failed > 0 ? 1 : 0

async function pack() {
  const packages = ['-w', '@rapport-chat/client', '-w', '@rapport-chat/react']
  await execute('npm', ['pack', '--pack-destination', folder, ...packages], { cwd: root })
  for (const file of await readdir(folder)) {
    const [, name] = /^rapport-chat-(\w+)-/.exec(file) ?? []
    if (name) await rename(join(folder, file), join(folder, `${name}.tgz`))
  }
}

async function check(name, source) {
  // The app is outside of the repository, so that it finds no modules of the repository.
  const app = join(folder, name)
  await cp(join(here, name), app, { recursive: true, filter: (path) => !/node_modules|\.next|dist$/.test(path) })
  await cp(join(here, '.npmrc'), join(app, '.npmrc'))
  await cp(join(here, 'sign-in.ts'), join(app, source, 'sign-in.ts'))
  for (const one of ['client', 'react']) await cp(join(folder, `${one}.tgz`), join(app, `${one}.tgz`))
  const env = { ...process.env, RAPPORT_URL: server.env.API_URL, NEXT_TELEMETRY_DISABLED: '1' }
  await timed(name, 'install', () => execute('npm', ['ci', '--no-audit', '--no-fund'], { cwd: app, env }))
  const { stdout: size } = await execute('du', ['-sm', 'node_modules'], { cwd: app })
  console.log(`# ${name}: ${Number.parseInt(size)} MB installed`)
  await cp(join(app, 'node_modules/@rapport-chat/react/dist/emoji-data'), join(app, 'public/emoji-data'), {
    recursive: true,
  })
  await timed(name, 'build', () => withoutNetwork(['npm', 'run', 'build'], { cwd: app, env }))
  // Runs after the build, which writes the types of the app's routes.
  await timed(name, 'types', () => execute('npm', ['run', 'types'], { cwd: app, env }))
  await timed(name, 'use', () => use(name, app, env))
}

/** Runs a command, without access to the network if the system allows that. */
function withoutNetwork(command, options) {
  const isPossible = spawnSync('unshare', ['--map-root-user', '--net', 'true']).status === 0
  if (!isPossible) console.log('# the network cannot be taken away here: unshare is not allowed')
  const [program, ...rest] = isPossible ? ['unshare', '--map-root-user', '--net', ...command] : command
  return execute(program, rest, options)
}

async function use(name, app, env) {
  const port = await freePort()
  const serving = spawn('npm', ['start', '--', '--port', String(port)], { cwd: app, env, detached: true })
  const output = []
  for (const stream of [serving.stdout, serving.stderr]) stream.on('data', (data) => output.push(String(data)))
  const context = await browser.newContext({ viewport: { width: 1000, height: 800 } })
  try {
    const origin = `http://127.0.0.1:${port}`
    const isServed = () =>
      fetch(origin).then(
        ({ ok }) => ok,
        () => false,
      )
    await eventually(isServed, `${name} serves its page`).catch((error) => {
      throw new Error(output.join(''), { cause: error })
    })
    await chat(name, origin, context)
  } finally {
    await context.close()
    // Ends the whole process group, because npm does not pass the signal on.
    process.kill(-serving.pid, 'SIGTERM')
  }
}

/** Ana reads a message from Ben, answers, and opens each part that is loaded on demand. */
async function chat(name, origin, context) {
  const ben = server.user('ben')
  const conversation = await ben.conversationWith('ana')
  await ben.send(conversation, `hello ${name}`)

  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE_MS)
  const foreign = []
  const problems = []
  const visit = (address) => {
    const { protocol, origin: target } = new URL(address)
    if (protocol !== 'data:' && target.replace(/^ws/, 'http') !== origin) foreign.push(address)
  }
  context.on('request', (request) => visit(request.url()))
  page.on('websocket', (socket) => visit(socket.url()))
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) problems.push(message.text())
  })
  const sockets = []
  page.on('websocket', (socket) => sockets.push(socket.url()))

  await page.goto(origin)
  await page.locator('[data-slot="conversation-link"]:has-text("Ben")').click()
  await page.locator(`[data-slot="message-row"]:has-text("hello ${name}")`).waitFor()
  await page.locator('[data-slot="field"]').fill(`answer from ${name}`)
  await page.keyboard.press('Enter')
  const isThere = async () => {
    const messages = await ben.call('GET', `/messages?conversationId=${conversation}`)
    return messages.some(({ content }) => content === `answer from ${name}`)
  }
  await eventually(isThere, 'the answer reaches the server')
  // Ben's next message arrives over the socket.
  await ben.send(conversation, `live ${name}`)
  await page.locator(`[data-slot="message-row"]:has-text("live ${name}")`).waitFor()
  assert.equal(sockets.length, 1, 'one socket')

  await page.locator('[data-slot="quick-access"] button').first().click()
  await page.getByRole('dialog').waitFor()
  await page.keyboard.press('Escape')
  await page.locator('[data-slot="presence-menu"] button').first().click()
  await page.getByRole('menuitemradio').first().waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('button', { name: 'Emoji' }).click()
  await page.getByRole('gridcell').first().waitFor()

  assert.deepEqual(foreign, [], 'requests to other hosts')
  assert.deepEqual(problems, [], 'errors and warnings in the console')
}

async function timed(name, step, run) {
  const start = performance.now()
  await run()
  console.log(`# ${name}: ${step} ${((performance.now() - start) / 1000).toFixed(1)} s`)
}

/** Returns a port that was free a moment ago. */
async function freePort() {
  const listening = createServer()
  await new Promise((done) => listening.listen(0, '127.0.0.1', done))
  const { port } = listening.address()
  await new Promise((done) => listening.close(done))
  return port
}
