// node tests/ui/outages.mjs [RUNS] [SECONDS]: kills the server while Ana writes in Chromium and Ben
// in Firefox, and restarts it with the same ports and database. Messages are written before, during
// and after the outage. At the end, both windows and the database must agree.
import { strict as assert } from 'node:assert'
import { launchChromium, launchFirefox } from '../browser/browsers.mjs'
import { drive } from './driver.mjs'
import { startServer } from './harness.mjs'

const RUNS = Number(process.argv[2] ?? 20)
const OUTAGE_MS = 1000 * Number(process.argv[3] ?? 30)

/** The pause between two messages from the same person. */
const RHYTHM_MS = 1500

/**
 * The minimum and the maximum time between the kill and the banner. The banner is due after two
 * seconds; the margins allow for a busy machine.
 */
const BANNER_MS = [1900, 5000]

/** The time limit for recovery. The next connection attempt is at most 36 s away (30 s + 20 %). */
const RECOVERY_MS = 60_000

const pause = (ms) => new Promise((done) => setTimeout(done, Math.max(0, ms)))

async function open(name, browser, server, conversation) {
  const page = await browser.newPage()
  // The window is high enough for all messages of a run to stay in the document.
  await (page.setViewportSize ?? page.setViewport).call(page, { width: 900, height: 2400 })
  await page.goto(`${server.url}/demo/?as=${name}&c=${conversation}`)
  const person = { name, ...drive(page) }
  await person.appears('[data-slot="field"]')
  await person.disappears('[data-slot="message-list"] [data-slot="skeleton"]')
  return person
}

/** Records texts of this run that are shown twice, or that disappear after they were shown. */
const watch = (person, run) =>
  person.evaluate((prefix) => {
    window.watched?.disconnect()
    window.faults = []
    const seen = new Set()
    const look = () => {
      const texts = [...document.querySelectorAll('[data-slot="message-row"] .rpt-text')]
        .map((one) => one.firstChild?.textContent ?? '')
        .filter((text) => text.startsWith(prefix))
      const now = new Set(texts)
      if (now.size < texts.length) window.faults.push(`twice: ${texts.join(' ')}`)
      for (const text of seen) if (!now.has(text)) window.faults.push(`vanished: ${text}`)
      for (const text of now) seen.add(text)
    }
    window.watched = new MutationObserver(look)
    window.watched.observe(document.querySelector('[data-slot="rows"]'), { childList: true, subtree: true })
  }, `${run}-`)

async function outage(run, server, conversation, people) {
  const written = { ana: [], ben: [] }
  const say = async (person, when) => {
    const text = `${run}-${person.name}-${when}-${written[person.name].length + 1}.`
    written[person.name].push(text)
    await person.send(text)
    // The sender sees the message without waiting for the server.
    await person.shows(text)
  }
  const keepSaying = async (person, when, until) => {
    while (Date.now() < until) {
      const from = Date.now()
      await say(person, when)
      await pause(RHYTHM_MS - (Date.now() - from))
    }
  }
  const everyone = (action) => Promise.all(people.map(action))

  await everyone((person) => watch(person, run))
  await everyone((person) => keepSaying(person, 'before', Date.now() + 4 * RHYTHM_MS))
  // When the server is killed, half of a message is in the field. The rest is typed during the
  // outage.
  await everyone((person) => person.type(`${run}-${person.name}-half`))

  await server.kill()
  const killed = Date.now()
  const banners = everyone(async (person) => {
    await person.appears('[data-slot="connection-banner"]', OUTAGE_MS)
    return Date.now() - killed
  })
  await everyone(async (person) => {
    assert.equal(await person.draft(), `${run}-${person.name}-half`)
    const text = `${run}-${person.name}-half-finished.`
    written[person.name].push(text)
    await person.page.keyboard.type('-finished.')
    await person.page.keyboard.press('Enter')
    await person.shows(text)
    await keepSaying(person, 'during', killed + OUTAGE_MS - 2 * RHYTHM_MS)
    await person.type(`draft ${run} of ${person.name}`)
  })
  const shown = await banners
  for (const after of shown)
    assert.ok(after >= BANNER_MS[0] && after <= BANNER_MS[1], `a banner appeared after ${after} ms`)
  await pause(killed + OUTAGE_MS - Date.now())

  const restarting = Date.now()
  await server.restart()
  const ready = Date.now()
  const gone = await everyone(async (person) => {
    await person.disappears('[data-slot="connection-banner"]', RECOVERY_MS)
    return Date.now() - ready
  })
  await everyone(async (person) => {
    assert.equal(await person.draft(), `draft ${run} of ${person.name}`)
    await person.page.keyboard.press('Enter')
    written[person.name].push(`draft ${run} of ${person.name}`)
    await person.shows(`draft ${run} of ${person.name}`)
    await keepSaying(person, 'after', Date.now() + 3 * RHYTHM_MS)
  })

  const all = written.ana.length + written.ben.length
  const isOfRun = (text) => text.startsWith(`${run}-`) || text.startsWith(`draft ${run} of`)
  await everyone((person) =>
    person.until(
      ([prefix, draft, count]) =>
        [...document.querySelectorAll('[data-slot="message-row"] .rpt-text')].filter(({ firstChild }) => {
          const text = firstChild?.textContent ?? ''
          return text.startsWith(prefix) || text.startsWith(draft)
        }).length >= count &&
        document.querySelector('[data-status="pending"], [data-status="sending"], [data-status="failed"]') === null,
      [`${run}-`, `draft ${run} of`, all],
      RECOVERY_MS,
    ),
  )
  const delivered = Date.now() - ready

  const stored = (
    await server.sql(
      `select content from public.user_messages where conversation_id = '${conversation}' order by seq`,
    )
  )
    .split('\n')
    .filter(isOfRun)
  for (const person of people) {
    assert.deepEqual((await person.texts()).filter(isOfRun), stored, `the window of ${person.name}`)
    assert.deepEqual(
      stored.filter((text) => written[person.name].includes(text)),
      written[person.name],
      `the messages of ${person.name}`,
    )
    assert.deepEqual(await person.evaluate(() => window.faults), [])
  }
  assert.equal(stored.length, all)
  return { all, banner: Math.max(...shown), start: ready - restarting, gone: Math.max(...gone), delivered }
}

const server = await startServer()
const browsers = await Promise.all([launchChromium(), launchFirefox()])
let failed = 0
const recoveries = []
try {
  const conversation = await server.user('ana').conversationWith('ben')
  let people = null
  for (let run = 1; run <= RUNS; run++) {
    try {
      people ??= await Promise.all(
        ['ana', 'ben'].map((name, index) => open(name, browsers[index], server, conversation)),
      )
      const { all, banner, start, gone, delivered } = await outage(run, server, conversation, people)
      recoveries.push(gone)
      console.log(
        `ok   outage ${run}: ${all} messages once and in order; banner after ${banner} ms, ` +
          `ready after ${start} ms, banner gone ${gone} ms later, everything delivered ${delivered} ms later`,
      )
    } catch (error) {
      failed++
      console.log(`FAIL outage ${run}: ${String(error.stack ?? error).slice(0, 3000)}`)
      for (const person of people ?? []) {
        const texts = await person.texts().catch(() => [])
        const waiting = await person
          .evaluate(() => [...document.querySelectorAll('[data-status]')].map((one) => one.dataset.status).join(' '))
          .catch(() => '')
        console.log(`     ${person.name} shows ${texts.slice(-70).join(' ')}\n     ${waiting}`)
      }
      // Otherwise, the server might stay down. The next run starts with new windows.
      await server.restart().catch(() => undefined)
      await Promise.all((people ?? []).map(({ page }) => page.close().catch(() => undefined)))
      people = null
    }
  }
  recoveries.sort((a, b) => a - b)
  console.log(
    `banner gone after the server was ready: median ${recoveries[recoveries.length >> 1]} ms, longest ${recoveries.at(-1)} ms`,
  )
} finally {
  await Promise.all(browsers.map((browser) => browser.close().catch(() => undefined)))
  await server.close()
}
console.log(`${RUNS - failed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
