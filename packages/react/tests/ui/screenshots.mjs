// node tests/ui/screenshots.mjs FOLDER [states …]: takes pictures of the main states of the
// demonstration page at three widths in both themes, for a person to look at. A sheet per state
// shows its pictures together. The states "chat-light" and "chat-dark" have only one picture each,
// which the README shows.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { launchChromium } from '../browser/browsers.mjs'
import { isLive } from './checks-messages.mjs'
import { settle, startServer } from './harness.mjs'

const [folder = 'screenshots', ...wanted] = process.argv.slice(2)
const SIZES = [
  { width: 1280, height: 800 },
  { width: 768, height: 1024 },
  { width: 375, height: 812, isPhone: true },
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
  const withBenOfAda = await ada.conversationWith('ben')
  await ada.send(withBenOfAda, 'صباح الخير! هل وصلت الأرقام الفصلية؟')
  const answer = await ben.send(withBenOfAda, 'نعم، وصلت أمس: 48,213 صفًا من ملف report-q3.csv')
  await ada.send(withBenOfAda, 'شكرًا جزيلًا', { reply_to_id: answer.id })
  await ada.call('POST', `/messages/${answer.id}/reactions`, { reaction: '👍' })
  await ada.send(withBenOfAda, 'The draft is here: https://example.com/reports/2026/q3 وسأرسل الباقي غدًا.')
  return { withBen, withAda, withSue, withBenOfAda }
}

const ids = await fill()
const slot = (page, name) => page.locator(`[data-slot="${name}"]`)
const live = (page) => isLive({ until: (check) => page.waitForFunction(check, undefined, { polling: 50 }) })
const opened = async (page) => {
  await slot(page, 'message-row').last().waitFor()
  await live(page)
}

/** The sizes of the README's pictures. Their heights cut the top message between two lines. */
const README_LIGHT = { width: 1120, height: 656, theme: 'light' }
const README_DARK = { width: 1120, height: 632, theme: 'dark' }

async function readAll() {
  for (const name of ['ana', 'ben'])
    await server.user(name).call('POST', `/conversations/${ids.withBen}/read`, {})
}

/**
 * By name: the address of a state, the steps that lead to it, and the size and theme if there is
 * only one picture.
 */
const states = {
  'chat-light': [
    '?as=ana,ben',
    async (page) => {
      await readAll()
      for (const name of ['ana', 'ben'])
        await page.locator(`[data-person="${name}"] [data-conversation="${ids.withBen}"]`).click()
      await opened(page)
      await page.locator('[data-person="ben"] [data-slot="field"]').pressSequentially('I will bring the plan')
      await page.mouse.move(300, 20)
      await page.locator('[data-person="ana"] [data-slot="typing-indicator"][data-visible]').waitFor()
    },
    README_LIGHT,
  ],
  'chat-dark': [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await readAll()
      await opened(page)
    },
    README_DARK,
  ],
  chooser: ['', (page) => page.locator('.demo-chooser li').last().waitFor()],
  list: ['?as=ana', (page) => slot(page, 'conversation-link').nth(2).waitFor()],
  conversation: [`?as=ana&c=${ids.withBen}`, opened],
  'item menu': [
    '?as=ana',
    async (page) => {
      const item = slot(page, 'conversation').nth(1)
      await item.hover()
      await item.locator('.rpt-item-menu').click({ force: true })
      await page.getByRole('menu').waitFor()
    },
  ],
  empty: ['?as=zoe', (page) => page.locator('[data-slot="empty-state"]:visible').first().waitFor()],
  arabic: [`?as=ada&c=${ids.withBenOfAda}&lang=ar`, opened],
  'arabic list': ['?as=ana&lang=ar', (page) => slot(page, 'conversation-link').nth(2).waitFor()],
  offline: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await page.context().setOffline(true)
      await slot(page, 'connection-banner').waitFor()
      await slot(page, 'field').fill('Written without a network')
      await page.keyboard.press('Control+Enter')
      await slot(page, 'message-row').filter({ hasText: 'Written without' }).waitFor()
    },
  ],
  settings: [
    '?as=ana',
    async (page) => {
      await slot(page, 'conversation-link').nth(2).waitFor()
      await page.getByRole('button', { name: 'Settings' }).click()
      await page.getByText('Quiet hours').waitFor()
    },
  ],
  emoji: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'composer').getByRole('button', { name: 'Emoji' }).click()
      await page.locator('.rpt-emoji-button:visible').first().waitFor()
    },
  ],
  shortcuts: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await page.keyboard.press('Control+/')
      await slot(page, 'dialog').waitFor()
    },
  ],
  history: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await page.locator('.rpt-edited').first().click()
      await page.getByText('Version 1').waitFor()
    },
  ],
  question: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'message-row').last().focus()
      await page.keyboard.press('Delete')
      await slot(page, 'dialog').waitFor()
    },
  ],
  edit: [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      await slot(page, 'field').press('ArrowUp')
      await slot(page, 'strip').waitFor()
    },
  ],
  'large emoji': [
    `?as=ana&c=${ids.withBen}`,
    async (page) => {
      await opened(page)
      const row = slot(page, 'message-row').filter({ has: page.locator('[data-large]') })
      await row.focus()
      await row.hover()
      await slot(page, 'toolbar').waitFor()
    },
  ],
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
      await page.keyboard.type('At three, in the small room on the second floor.')
      await page.keyboard.press('Shift+Enter')
      await page.keyboard.type('I bring the numbers.')
    },
  ],
  toast: [
    '?as=ana',
    async (page) => {
      await server.user('ana').call('PATCH', `/conversations/${ids.withSue}`, { is_archived: false })
      const link = page.locator(`[data-conversation="${ids.withSue}"]`)
      await link.focus()
      await page.keyboard.press('Delete')
      await page.locator('.rpt-toast').waitFor()
      await link.waitFor({ state: 'detached' })
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
  'gallery arabic': ['gallery/?only=states&lang=ar', opened],
  'gallery composers': ['gallery/?only=composers', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery parts': ['gallery/?only=parts', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery lists': ['gallery/?only=lists', (page) => page.locator('.gallery-state').first().waitFor()],
  'gallery conversations': ['gallery/?only=conversations', (page) => page.locator('.gallery-state').first().waitFor()],
}

let failed = 0
await mkdir(folder, { recursive: true })
for (const [name, [path, prepare, only]] of Object.entries(states)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const shots = []
  for (const theme of only ? [only.theme] : ['light', 'dark'])
    for (const viewport of only ? [only] : SIZES) {
      const { width, height, isPhone = false } = viewport
      const context = await browser.newContext({
        viewport: { width, height },
        hasTouch: isPhone,
        isMobile: isPhone,
        reducedMotion: 'reduce',
        colorScheme: theme,
      })
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
      const file = join(folder, only ? `${name}.png` : `${name.replaceAll(' ', '-')}-${theme}-${width}.png`)
      // The gallery's sections are longer than any window.
      await page.screenshot({ path: file, fullPage: /gallery (?:con|com|par|lis)/.test(name), scale: 'css' })
      shots.push({ file, ...viewport })
      await context.close()
    }
  console.log(`ok   ${name}`)
  if (only) continue
  const page = await browser.newPage({ viewport: { width: 1460, height: 1060 } })
  const images = await Promise.all(
    shots.map(
      async ({ file, width }) =>
        `<img style="flex:none" width="${width * 0.58}" src="data:image/png;base64,${(await readFile(file)).toString('base64')}">`,
    ),
  )
  await page.setContent(`<body style="margin:4px;background:#888;display:flex;flex-wrap:wrap;gap:4px">${images.join('')}`)
  await writeFile(join(folder, `sheet-${name.replaceAll(' ', '-')}.png`), await page.screenshot({ fullPage: true }))
  await page.close()
}
await browser.close()
await server.close()
process.exitCode = failed > 0 ? 1 : 0
