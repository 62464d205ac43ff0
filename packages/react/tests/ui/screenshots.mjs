// node tests/ui/screenshots.mjs FOLDER [state …]: takes screenshots of the demonstration page's
// main states, or of those named, at three widths and in both themes, for visual review. It also
// makes a sheet of all screenshots of each state.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { launchChromium } from '../browser/browsers.mjs'
import { isLive } from './checks-messages.mjs'
import { settle, startServer } from './harness.mjs'

const [folder = 'screenshots', ...wanted] = process.argv.slice(2)
const SIZES = [
  { width: 1280, height: 800 },
  { width: 768, height: 1024 },
  { width: 390, height: 844 },
]

const server = await startServer()
const browser = await launchChromium()

/**
 * Creates three conversations. The one with Ben has the kinds of message that look different: a
 * reply, a link, reactions, only emoji, an edited, a deleted and a long one, and code.
 */
async function fill() {
  const [ana, ben, ada, sue] = ['ana', 'ben', 'ada', 'sue'].map(server.user)
  const withBen = await ana.conversationWith('ben')
  const withAda = await ada.conversationWith('ana')
  const withSue = await sue.conversationWith('ana')
  await ada.send(withAda, 'The new dashboards are live. Could you have a look before the meeting?')
  await sue.send(withSue, 'Thanks!')
  const plan = await ben.send(withBen, 'Morning! Do you have the quarterly numbers?')
  await ben.send(withBen, 'The board asked for them again.')
  await ana.send(withBen, 'Almost. I am waiting for two teams, then I can send you everything at once.', {
    reply_to_id: plan.id,
  })
  const link = await ana.send(withBen, 'The draft is here: https://example.com/reports/2026/q3?view=summary')
  await ben.call('POST', `/messages/${link.id}/reactions`, { reaction: '👍' })
  await ana.call('POST', `/messages/${link.id}/reactions`, { reaction: '🎉' })
  await ben.send(withBen, '🎉🎉')
  const typo = await ben.send(withBen, 'I will read it tonihgt')
  await ben.call('PATCH', `/messages/${typo.id}`, { content: 'I will read it tonight' })
  const gone = await ana.send(withBen, 'wrong window')
  await ana.call('DELETE', `/messages/${gone.id}`)
  await ana.send(
    withBen,
    'One more thing: the figures of the southern region include the two stores that closed in August, so compare them with last year only after taking those out. I added a note on page 12 that says which ones they are.',
  )
  await ana.send(withBen, 'Run `make report` if you want the raw data.')
  await ben.send(withBen, 'Will do. See you at 3?')
  return { withBen, withAda, withSue }
}

const ids = await fill()
const slot = (page, name) => page.locator(`[data-slot="${name}"]`)
const live = (page) => isLive({ until: (check) => page.waitForFunction(check, undefined, { polling: 50 }) })
const opened = async (page) => {
  await slot(page, 'message-row').last().waitFor()
  await live(page)
}

/** For each state: the address, and the actions that lead to it. */
const states = {
  chooser: ['', (page) => page.locator('.demo-chooser li').last().waitFor()],
  list: ['?as=ana', (page) => slot(page, 'conversation-link').nth(2).waitFor()],
  conversation: [`?as=ana&c=${ids.withBen}`, opened],
  empty: ['?as=zoe', (page) => slot(page, 'empty-state').first().waitFor()],
  toolbar: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'message-row').nth(3).focus()
      await page.keyboard.press('ArrowDown')
    },
  ],
  'message menu': [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'message-row').last().locator('.rpt-bubble').click({ button: 'right' })
      await page.getByRole('menu').waitFor()
    },
  ],
  'new chat': [
    '?as=sue',
    async (page) => {
      await slot(page, 'new-message').click()
      await page.getByRole('combobox').fill('an')
      await page.getByRole('option').first().waitFor()
    },
  ],
  search: [
    '?as=ana',
    async (page) => {
      await slot(page, 'search').fill('the')
      await slot(page, 'hit').first().waitFor()
    },
  ],
  'search in conversation': [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await page.getByRole('button', { name: 'Search in this conversation' }).click()
      await page.getByRole('searchbox', { name: 'Search in this conversation' }).fill('the')
      await slot(page, 'hit').first().waitFor()
    },
  ],
  'conversation menu': [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'conversation-header').locator('button').last().click()
      await page.getByRole('menu').waitFor()
    },
  ],
  'presence menu': [
    '?as=ana',
    async (page) => {
      await slot(page, 'conversation-link').nth(2).waitFor()
      await slot(page, 'presence-menu').locator('button').click()
      await page.getByRole('menu').waitFor()
    },
  ],
  'quick access': [
    '?as=ana',
    async (page) => {
      await slot(page, 'conversation-link').nth(2).waitFor()
      await slot(page, 'quick-access').locator('button').first().click()
      await settle(page)
    },
  ],
  reply: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'message-row').last().focus()
      await page.keyboard.press('r')
      await slot(page, 'strip').waitFor()
      await page.keyboard.type('At three, in the small room on the second floor.\nI bring the numbers.')
    },
  ],
  two: [
    '?as=ana,ben',
    async (page) => {
      for (const name of ['ana', 'ben'])
        await page.locator(`[data-person="${name}"] [data-slot="conversation-link"]`).first().click()
      await opened(page)
    },
  ],
  'gallery states': ['gallery/?only=states', opened],
  'gallery composers': ['gallery/?only=composers', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery parts': ['gallery/?only=parts', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery lists': ['gallery/?only=lists', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery conversations': ['gallery/?only=conversations', (page) => page.locator('.gallery-state').first().waitFor()],
}

let failed = 0
await mkdir(folder, { recursive: true })
for (const [name, [path, prepare]] of Object.entries(states)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const shots = []
  for (const theme of ['light', 'dark'])
    for (const viewport of SIZES) {
      const context = await browser.newContext({ viewport, reducedMotion: 'reduce', colorScheme: theme })
      const page = await context.newPage()
      page.setDefaultTimeout(8000)
      try {
        await page.goto(`${server.url}/demo/${path}${path.includes('?') ? '&' : '?'}theme=${theme}`)
        await prepare(page)
      } catch (error) {
        failed++
        console.log(`FAIL ${name} ${theme} ${viewport.width}: ${String(error).slice(0, 200)}`)
      }
      await settle(page)
      const file = join(folder, `${name.replaceAll(' ', '-')}-${theme}-${viewport.width}.png`)
      await page.screenshot({ path: file })
      shots.push({ file, ...viewport })
      await context.close()
    }
  const page = await browser.newPage({ viewport: { width: 1480, height: 1060 } })
  const images = await Promise.all(
    shots.map(
      async ({ file, width }) =>
        `<img width="${width * 0.58}" src="data:image/png;base64,${(await readFile(file)).toString('base64')}">`,
    ),
  )
  await page.setContent(`<body style="margin:4px;background:#888;display:flex;flex-wrap:wrap;gap:4px">${images.join('')}`)
  await writeFile(join(folder, `sheet-${name.replaceAll(' ', '-')}.png`), await page.screenshot({ fullPage: true }))
  await page.close()
  console.log(`ok   ${name}`)
}
await browser.close()
await server.close()
process.exitCode = failed > 0 ? 1 : 0
