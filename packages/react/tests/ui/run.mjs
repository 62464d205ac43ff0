// node tests/ui/run.mjs [NUMBER or part of a title …]: runs the checks in Chromium against a real
// server. Each title begins with a number. Checks of the same feature have the same number.
import { launchChromium } from '../browser/browsers.mjs'
import { startServer } from './harness.mjs'

const groups = await Promise.all(
  ['messages', 'list', 'people', 'access'].map(async (name) => (await import(`./checks-${name}.mjs`)).checks),
)
const wanted = process.argv.slice(2)
const checks = groups
  .flatMap((group) => Object.entries(group))
  .filter(
    ([title]) =>
      wanted.length === 0 ||
      wanted.some((word) => (/^\d+$/.test(word) ? title.startsWith(`${word} `) : title.includes(word))),
  )

const server = await startServer()
const browser = await launchChromium()
let passed = 0
let failed = 0
try {
  for (const [title, check] of checks) {
    const from = Date.now()
    try {
      await check({ browser, server })
      passed++
      console.log(`ok   ${title} (${Date.now() - from} ms)`)
    } catch (error) {
      failed++
      console.log(
        `FAIL ${title} (${Date.now() - from} ms)\n     ${String(error.stack ?? error)
          .split('\n')
          .slice(0, 40)
          .join('\n     ')}`,
      )
    }
    // A failed check leaves its windows open, and one of them may own the shared connection.
    server.restore()
    await Promise.all(browser.contexts().map((context) => context.close().catch(() => undefined)))
  }
} finally {
  await browser.close()
  await server.close()
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
