// node tests/ui/budgets.mjs [part of a name …]: measures the demonstration page in Chromium against
// a real server, and prints each figure next to its budget as a row of a table. Without arguments,
// it runs all `measures`. A missed budget is not a failure, because times depend on the machine.
// RAPPORT_BIN should be a release build.
import { launchChromium } from '../browser/browsers.mjs'
import { isLive } from './checks-messages.mjs'
import { eventually, settle, startServer } from './harness.mjs'
import { mainThread } from './trace.mjs'

const wanted = process.argv.slice(2)
const rows = []
/** Prints a row of the table. `ok`: whether the figure is within its budget. */
const report = (what, figure, budget, ok) => {
  rows.push({ what, figure, budget, ok })
  console.log(`| ${what} | ${figure} | ${budget} | ${ok ? 'yes' : '**no**'} |`)
}
const sorted = (values) => [...values].sort((a, b) => a - b)
const quantile = (values, share) => sorted(values)[Math.min(values.length - 1, Math.floor(values.length * share))]
const median = (values) => quantile(values, 0.5)
/** Reports to stderr, outside of the table, what a long measurement is doing. */
const progress = (text) => console.error(`  ${new Date().toISOString().slice(11, 19)} ${text}`)
const ms = (value) => `${Math.round(value)} ms`

/** One turn of the wheel scrolls about two screens: 10,000 messages take a minute or two. */
const STEP_PX = 1200

/**
 * The number of steps whose trace is evaluated together. The trace of all steps would take more
 * memory than the page.
 */
const TRACED_STEPS = 50

/**
 * The pause between two keys. Ten per second is fast typing. Without a pause, several keys would be
 * displayed in the same frame.
 */
const KEYS = { delay: 100 }

/** More than the height of the browser's own bar. */
const BAR_PX = 200

/** The pause between two messages. The client sends four per second; a fifth would have to wait. */
const MESSAGE_PAUSE_MS = 300

const session = (window) => window.context.newCDPSession(window.page)
/**
 * Makes the window larger than the page. Otherwise, headless Chromium does not draw the lower end
 * of the page, as if the browser's own bar covered it. A letter there would be reported as
 * displayed only with the next change that is drawn, perhaps seconds later.
 */
const growWindow = async (window) => {
  const browser = await session(window)
  const { windowId, bounds } = await browser.send('Browser.getWindowForTarget')
  const { width, height } = bounds
  await browser.send('Browser.setWindowBounds', { windowId, bounds: { width, height: height + BAR_PX } })
}
const throttle = async (window, rate) => (await session(window)).send('Emulation.setCPUThrottlingRate', { rate })

/** Runs in the page before its scripts. Adds functions that report when something was painted. */
const watchPaint = () => {
  /** Waits for the first frame in which the condition holds, and resolves with its paint time. */
  window.painted = (condition) =>
    new Promise((done, fail) => {
      setTimeout(() => fail(new Error(`never: ${condition}`)), 20_000)
      const look = () => {
        if (!condition()) return
        observer.disconnect()
        // A task that is posted in the frame runs once the frame was handed over for painting. With
        // this priority, it runs before the page's own timers.
        requestAnimationFrame(() => {
          void scheduler.postTask(() => done(performance.now()), { priority: 'user-blocking' })
        })
      }
      const observer = new MutationObserver(look)
      observer.observe(document, { childList: true, subtree: true, characterData: true })
      look()
    })
  /** The number of requests that are in flight. */
  window.requests = 0
  const { fetch } = window
  window.fetch = (...all) => {
    window.requests++
    return fetch(...all).finally(() => window.requests--)
  }
  window.rowWith = (text) =>
    [...document.querySelectorAll('[data-slot="message-row"]')].findLast((row) => row.textContent.includes(text))
  /** For each event: when its handlers had run, and when the next frame was shown, in ms. */
  window.interactions = []
  new PerformanceObserver((list) => {
    for (const { startTime, processingEnd, duration, interactionId } of list.getEntries())
      if (interactionId) window.interactions.push({ startTime, handled: processingEnd - startTime, duration })
  }).observe({ type: 'event', durationThreshold: 16, buffered: true })
}

const seed = (server, conversation, sender, count, prefix) =>
  server.sql(`insert into public.user_messages (conversation_id, sender_id, content, client_message_id)
    select '${conversation}', '${server.user(sender).id}', '${prefix} ' || n || '. ' || repeat('word ', (n * 7919) % 50), '${prefix}-' || n from generate_series(1, ${count}) n`)

async function open(t, name, { path = '', rate = 1, ...options } = {}) {
  const context = await t.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  await context.addInitScript(watchPaint)
  const page = await context.newPage()
  const window = { context, page }
  await growWindow(window)
  if (rate !== 1) await throttle(window, rate)
  await page.goto(`${t.server.url}/demo/?as=${name}${path}`)
  return { ...window, until: (check, argument) => page.waitForFunction(check, argument, { polling: 50 }) }
}

const measures = {
  async 'first message'(t) {
    const conversation = await t.server.user('ana').conversationWith('ben')
    await seed(t.server, conversation, 'ben', 300, 'first')
    await t.server.user('ana').call('POST', `/conversations/${conversation}/read`, {})
    for (const [rate, budget] of [
      [4, 1500],
      [1, null],
    ]) {
      const times = []
      for (let i = 0; i < 5; i++) {
        const ana = await open(t, 'ana', { path: `&c=${conversation}`, rate })
        times.push(await ana.page.evaluate(() => window.painted(() => window.rowWith('first 300.') !== undefined)))
        await ana.context.close()
      }
      report(
        `first message visible, empty cache, CPU ×${rate}`,
        `${ms(median(times))} (${ms(Math.min(...times))} to ${ms(Math.max(...times))})`,
        budget ? `≤ ${budget} ms` : '',
        budget ? median(times) <= budget : true,
      )
    }
  },

  async 'change of conversation'(t) {
    const prefixes = {}
    for (const other of ['ana', 'ben', 'zoe', 'ada']) {
      const conversation = await t.server.user('sue').conversationWith(other)
      await seed(t.server, conversation, other, 120, `change-${other}`)
      await t.server.user('sue').call('POST', `/conversations/${conversation}/read`, {})
      prefixes[conversation] = `change-${other} 120.`
    }
    const click = (sue, conversation) =>
      sue.page.evaluate(
        ([id, text]) =>
          new Promise((done) => {
            const link = document.querySelector(`[data-conversation="${id}"]`)
            const from = performance.now()
            link.click()
            void window.painted(() => window.rowWith(text) !== undefined).then((at) => done(at - from))
          }),
        [conversation, prefixes[conversation]],
      )
    const fresh = []
    const cached = []
    for (let i = 0; i < 4; i++) {
      const sue = await open(t, 'sue', { rate: 4 })
      await sue.page.locator('[data-slot="conversation-link"]').nth(3).waitFor()
      await isLive(sue)
      for (const id of Object.keys(prefixes)) fresh.push(await click(sue, id))
      for (const id of Object.keys(prefixes)) cached.push(await click(sue, id))
      await sue.context.close()
    }
    report(
      'conversation that is not loaded, CPU ×4',
      `median ${ms(median(fresh))}, longest ${ms(Math.max(...fresh))}`,
      '≤ 400 ms',
      median(fresh) <= 400,
    )
    report(
      'conversation that was loaded before, CPU ×4',
      `median ${ms(median(cached))}, longest ${ms(Math.max(...cached))}`,
      '≤ 100 ms',
      median(cached) <= 100,
    )
  },

  async echo(t) {
    const conversation = await t.server.user('ana').conversationWith('ben')
    for (const [rate, budget] of [
      [1, 17],
      [4, 50],
    ]) {
      const ana = await open(t, 'ana', { path: `&c=${conversation}`, rate })
      await ana.page.locator('[data-slot="field"]').waitFor()
      await isLive(ana)
      const shown = []
      const painted = []
      for (let i = 0; i < 24; i++) {
        const text = `echo ${rate}-${i}.`
        await ana.page.locator('[data-slot="field"]').pressSequentially(text)
        await settle(ana.page)
        // In two steps, so that the page listens before the key is pressed.
        await ana.page.evaluate((wantedText) => {
          window.times = new Promise((done, fail) => {
            let from = 0
            let inDocument = 0
            addEventListener('keydown', (event) => (from = event.timeStamp), { capture: true, once: true })
            const isShown = () => {
              const row = window.rowWith(wantedText)
              if (row) inDocument ||= performance.now()
              return row !== undefined
            }
            window.painted(isShown).then((at) => done([inDocument - from, at - from]), fail)
          })
        }, text)
        await ana.page.keyboard.press('Enter')
        const [first, second] = await ana.page.evaluate(() => window.times)
        shown.push(first)
        painted.push(second)
        await ana.until(() => document.querySelector('[data-status="pending"], [data-status="sending"]') === null)
      }
      report(
        `Enter to the message in the document, CPU ×${rate}`,
        `median ${ms(median(shown))}, p95 ${ms(quantile(shown, 0.95))}`,
        `≤ ${budget === 17 ? '1 frame' : `${budget} ms`}`,
        quantile(shown, 0.95) <= budget,
      )
      report(
        `Enter to the painted message, CPU ×${rate}`,
        `median ${ms(median(painted))}, p95 ${ms(quantile(painted, 0.95))}`,
        rate === 1 ? '≤ 2 frames' : '≤ 50 ms',
        quantile(painted, 0.95) <= (rate === 1 ? 34 : 50),
      )
      await ana.context.close()
    }
  },

  async interactions(t) {
    const conversation = await t.server.user('ana').conversationWith('ben')
    await seed(t.server, conversation, 'ben', 60, 'interactions')
    await t.server.user('ana').call('POST', `/conversations/${conversation}/read`, {})
    const ana = await open(t, 'ana', { path: `&c=${conversation}`, rate: 4 })
    const { page } = ana
    await page.locator('[data-slot="field"]').waitFor()
    await isLive(ana)
    const slot = (name) => page.locator(`[data-slot="${name}"]`)
    const away = () => page.keyboard.press('Escape')
    const steps = {
      'typing a letter': () => page.locator('[data-slot="field"]').pressSequentially('interaction', KEYS),
      'sending': () => page.keyboard.press('Enter'),
      'new message': async () => {
        await page.keyboard.press('Control+k')
        await page.getByRole('combobox').waitFor()
        await away()
      },
      'finding a person': async () => {
        await page.keyboard.press('Control+k')
        await page.getByRole('combobox').pressSequentially('ben', KEYS)
        await page.getByRole('option').first().waitFor()
        // The first Escape empties the field, and the second one closes the dialog.
        await away()
        await away()
      },
      'menu of a message': async () => {
        await slot('message-row').last().locator('.rpt-bubble').click({ button: 'right' })
        await page.getByRole('menu').waitFor()
        await away()
      },
      'reactions of a message': async () => {
        await slot('message-row').last().focus()
        await page.keyboard.press('+')
        await slot('quick-reactions').waitFor()
        await page.keyboard.press('Enter')
      },
      'moving through messages': async () => {
        await slot('message-row').last().focus()
        for (let i = 0; i < 10; i++) await page.keyboard.press('ArrowUp')
        await page.keyboard.press('End')
      },
      'search in the conversation': async () => {
        await slot('conversation-header').getByRole('button', { name: 'Search in this conversation' }).click()
        await page.getByRole('searchbox', { name: 'Search in this conversation' }).pressSequentially('word', KEYS)
        await slot('hit').first().waitFor()
        await away()
      },
      'menu of the conversation': async () => {
        await slot('conversation-header').locator('button').last().click()
        await page.getByRole('menu').waitFor()
        await away()
      },
      'presence menu': async () => {
        await slot('presence-menu').locator('button').click()
        await page.getByRole('menu').waitFor()
        await away()
      },
      'quick access': async () => {
        await slot('quick-access').locator('button').first().click()
        await settle(page)
        await away()
      },
      'next conversation': async () => {
        await page.keyboard.press('Alt+ArrowDown')
        await settle(page)
        await page.keyboard.press('Alt+ArrowUp')
      },
    }
    const began = []
    for (const step of Object.values(steps)) {
      began.push(await page.evaluate(() => performance.now()))
      await step()
      await settle(page)
    }
    // The entry of an interaction arrives after its frame was displayed, perhaps in a later step.
    // So an entry belongs to the step in which its interaction began. After one more frame, all
    // entries have arrived.
    await page.evaluate(() => window.painted(() => true))
    await settle(page)
    const entries = await page.evaluate(() => window.interactions)
    const longest = (key) =>
      began.map((from, index) => {
        const own = entries.filter(({ startTime }) => startTime >= from && startTime < (began[index + 1] ?? Infinity))
        return Math.max(0, ...own.map((entry) => entry[key]))
      })
    const [handled, displayed] = [longest('handled'), longest('duration')]
    const found = Object.keys(steps).map((name, i) => `${name} ${Math.round(handled[i])}/${displayed[i]}`)
    console.log(`  interactions, until handled/until displayed, in ms: ${found.join(', ')}`)
    const what = `longest interaction of ${found.length} kinds`
    report(`${what}, until its handlers have run, CPU ×4`, ms(Math.max(...handled)), '', true)
    report(`${what}, until it is displayed (INP), CPU ×4`, ms(Math.max(...displayed)), '< 200 ms', Math.max(...displayed) < 200)
    await ana.context.close()
  },

  async scrolling(t) {
    const MESSAGES = 10_000
    const conversation = await t.server.user('ada').conversationWith('zoe').catch(() => null)
    const [reader, other] = conversation ? ['ada', 'zoe'] : ['sue', 'ada']
    const id = conversation ?? (await t.server.user('sue').conversationWith('ada'))
    progress('storing 10,000 messages')
    await seed(t.server, id, other, MESSAGES, 'scroll')
    await t.server.user(reader).call('POST', `/conversations/${id}/read`, {})
    const shown = await open(t, reader, { path: `&c=${id}` })
    const { page } = shown
    await page.locator('[data-slot="message-row"]').last().waitFor()
    await isLive(shown)
    await settle(page)
    const box = await page.locator('[data-slot="scroller"]').boundingBox()
    await page.mouse.move(box.x + 200, box.y + box.height / 2)
    let trace = await mainThread(shown)
    const tasks = []
    const frames = []
    let worst = 0
    let most = 0
    let isDone = false
    for (let step = 1; !isDone; step++) {
      if (step > MESSAGES) throw new Error('the first message was not reached')
      await page.mouse.wheel(0, -STEP_PX)
      const { moved, row, count, top, isAtTop } = await page.evaluate(async () => {
        const frame = () => new Promise((done) => requestAnimationFrame(done))
        const scroller = document.querySelector('[data-slot="scroller"]')
        await frame()
        await frame()
        const port = scroller.getBoundingClientRect()
        const row = document.elementFromPoint(port.left + 200, port.top + port.height / 2)?.closest('[data-key]')
        // The wheel may still be moving the list, so the place counts from the end of the list.
        const place = () => row.getBoundingClientRect().top + scroller.scrollTop
        const before = row && place()
        // A page of history that is being loaded must arrive while nothing scrolls.
        if (window.requests > 0) {
          for (let i = 0; i < 60 && window.requests > 0; i++) await frame()
          for (let i = 0; i < 6; i++) await frame()
        }
        return {
          moved: row?.isConnected ? Math.abs(place() - before) : 0,
          row: row?.outerHTML.slice(0, 600),
          count: document.querySelectorAll('[data-slot="message-row"]').length,
          top: Number(document.querySelector('[data-seq]')?.dataset.seq),
          isAtTop: document.querySelector('[data-slot="beginning"]') !== null && scroller.scrollTop + scroller.scrollHeight - scroller.clientHeight < 2,
        }
      })
      worst = Math.max(worst, moved)
      if (moved >= 1) progress(`step ${step}, at message ${top}: moved by ${moved.toFixed(1)} px: ${row}`)
      most = Math.max(most, count)
      isDone = isAtTop
      if (!isDone && step % TRACED_STEPS > 0) continue
      const traced = await trace.stop()
      tasks.push(...traced.tasks)
      frames.push(...traced.frames)
      const [slowest] = [...traced.tasks].sort((a, b) => b.time - a.time)
      progress(`step ${step}, at message ${top}, longest task ${ms(slowest.time)}, ${ms(slowest.cpu)} of CPU time`)
      if (!isDone) trace = await mainThread(shown)
    }
    for (const [key, name] of [
      ['time', 'longest task'],
      ['cpu', 'most CPU time of a task'],
    ]) {
      const times = tasks.map((task) => task[key])
      const long = times.filter((time) => time > 50).length
      const what = `${name} of ${times.length} while scrolling through 10,000 messages, CPU ×1`
      report(what, `${ms(Math.max(...times))}, ${long} above 50 ms`, '≤ 50 ms', long === 0)
    }
    const p95 = quantile(frames, 0.95)
    report(
      'script and layout of a frame meanwhile, p95, CPU ×1',
      `${p95.toFixed(1)} ms in ${frames.length} frames`,
      '≤ 8 ms',
      p95 <= 8,
    )
    report('position error of the row in the middle', `${worst.toFixed(1)} px`, '0 px', worst < 1)
    report('rows in the document', `${most}`, '≤ 400', most <= 400)
    await shown.context.close()
  },

  async hour(t) {
    const others = ['ana', 'ben', 'zoe', 'ada']
    const conversations = []
    for (const other of others) conversations.push(await t.server.user('sue').conversationWith(other))
    const context = await t.browser.newContext({ viewport: { width: 1280, height: 800 } })
    await context.addInitScript(() => {
      const timers = new Set()
      const { setTimeout: later, clearTimeout: cancel, setInterval: every, clearInterval: end } = window
      window.setTimeout = (run, after, ...rest) => {
        const id = later(() => (timers.delete(id), run(...rest)), after)
        timers.add(id)
        return id
      }
      window.setInterval = (...all) => {
        const id = every(...all)
        timers.add(id)
        return id
      }
      window.clearTimeout = (id) => (timers.delete(id), cancel(id))
      window.clearInterval = (id) => (timers.delete(id), end(id))
      window.timerCount = () => timers.size
    })
    const page = await context.newPage()
    const channels = new Set()
    page.on('websocket', (socket) =>
      socket.on('framesent', ({ payload }) => {
        const match = /"(phx_join|phx_leave)"/.exec(String(payload))
        const topic = /"(realtime:[^"]+)"/.exec(String(payload))?.[1]
        if (match && topic) channels[match[1] === 'phx_join' ? 'add' : 'delete'](topic)
      }),
    )
    await page.goto(`${t.server.url}/demo/?as=sue`)
    const shown = { context, page, until: (check, argument) => page.waitForFunction(check, argument, { polling: 50 }) }
    const cdp = await session(shown)
    const visit = async (index, text) => {
      const link = `[data-conversation="${conversations[index]}"]`
      if (text) await page.locator(`${link} [data-slot="unread-badge"][data-text="60"]`).waitFor()
      await page.locator(link).click()
      if (!text) return isLive(shown)
      // With so many unread messages, the conversation opens at the first one. The end is displayed
      // as well, because the unread messages would otherwise add up.
      await page.locator('[data-slot="unread-line"]').waitFor()
      await page.locator('[data-slot="pill"]').click()
      await page.locator('[data-slot="message-row"]', { hasText: text }).last().waitFor()
    }
    const look = async () => {
      await settle(page)
      await cdp.send('HeapProfiler.collectGarbage')
      await cdp.send('HeapProfiler.collectGarbage')
      const { usedSize } = await cdp.send('Runtime.getHeapUsage')
      const { jsEventListeners, nodes } = await cdp.send('Memory.getDOMCounters')
      return {
        heap: usedSize / 1e6,
        listeners: jsEventListeners,
        nodes,
        channels: channels.size,
        timers: await page.evaluate(() => window.timerCount()),
      }
    }
    // Visits all conversations first, so that their data and code are loaded before the comparison.
    for (let round = 0; round < 2; round++)
      for (let index = 0; index < conversations.length; index++) await visit(index)
    await visit(0)
    const before = await look()
    const ROUNDS = 60
    for (let round = 0; round < ROUNDS; round++) {
      if (round % 10 === 0) progress(`${round} of ${ROUNDS} minutes, heap ${(await look()).heap.toFixed(1)} MB`)
      // The messages never go to the displayed conversation.
      const at = (round + 1) % conversations.length
      const text = `hour-${round}`
      await seed(t.server, conversations[at], others[at], 60, text)
      await visit(at, `${text} 60.`)
    }
    await visit(0)
    // Waits until the timers of typing, presence and read receipts have ended.
    await eventually(async () => (await look()).timers <= before.timers + 2, 'timers to end').catch(() => undefined)
    const after = await look()
    report(
      `heap after ${ROUNDS * 60} messages and ${ROUNDS} changes of conversation`,
      `${before.heap.toFixed(1)} to ${after.heap.toFixed(1)} MB`,
      '+ ≤ 10 MB',
      after.heap - before.heap <= 10,
    )
    report(
      'listeners, channels, timers before and after',
      `${before.listeners}, ${before.channels}, ${before.timers}; ${after.listeners}, ${after.channels}, ${after.timers}`,
      'constant',
      after.channels <= before.channels && after.timers <= before.timers + 2,
    )
    await context.close()
  },

  async 'other window'(t) {
    const conversation = await t.server.user('ana').conversationWith('ben')
    // With many unread messages, Ben's window would open at the first of them, far from the end.
    await t.server.user('ben').call('POST', `/conversations/${conversation}/read`, {})
    const ana = await open(t, 'ana', { path: `&c=${conversation}` })
    const ben = await open(t, 'ben', { path: `&c=${conversation}` })
    for (const shown of [ana, ben]) {
      await shown.page.locator('[data-slot="field"]').waitFor()
      await isLive(shown)
    }
    const times = []
    for (let i = 0; i < 60; i++) {
      const pause = new Promise((done) => setTimeout(done, MESSAGE_PAUSE_MS))
      const text = `other ${i}.`
      const arrived = ben.page.evaluate(
        (wantedText) =>
          window.painted(() => window.rowWith(wantedText) !== undefined).then((at) => performance.timeOrigin + at),
        text,
      )
      const sent = ana.page.evaluate(
        () =>
          new Promise((done) =>
            addEventListener(
              'keydown',
              (event) => event.key === 'Enter' && done(performance.timeOrigin + event.timeStamp),
              { capture: true },
            ),
          ),
      )
      await ana.page.locator('[data-slot="field"]').fill(text)
      await ana.page.keyboard.press('Enter')
      times.push((await arrived) - (await sent))
      await ana.until(() => document.querySelector('[data-status="pending"], [data-status="sending"]') === null)
      await pause
    }
    report(
      'Enter to painted in the other window, CPU ×1',
      `median ${ms(median(times))}, p95 ${ms(quantile(times, 0.95))}`,
      'p95 ≤ 250 ms',
      quantile(times, 0.95) <= 250,
    )
    await ana.context.close()
    await ben.context.close()
  },
}

// DEMO_DIST is the folder of another build of the page, for a comparison.
const server = await startServer(process.env.DEMO_DIST ? { folder: process.env.DEMO_DIST } : {})
const browser = await launchChromium()
console.log('| what | measured | budget | holds |\n| --- | --- | --- | --- |')
let failed = 0
try {
  for (const [name, measure] of Object.entries(measures)) {
    if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue
    try {
      await measure({ browser, server })
    } catch (error) {
      failed++
      console.log(`FAIL ${name}: ${String(error.stack ?? error).slice(0, 2000)}`)
    }
    await Promise.all(browser.contexts().map((context) => context.close().catch(() => undefined)))
  }
} finally {
  await browser.close()
  await server.close()
}
process.exitCode = failed > 0 ? 1 : 0
