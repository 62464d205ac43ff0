import { expect, test } from 'vitest'
import { PresenceReporter } from './presence'
import { FakeClock, FakePage } from './testing'

function presenceOf() {
  const clock = new FakeClock()
  const page = new FakePage()
  const reports: string[] = []
  const presence = new PresenceReporter({
    clock,
    page,
    ttlMs: () => 60_000,
    report: (status) => reports.push(status),
  })
  presence.start()
  return { clock, page, reports, presence }
}

test('nothing is reported while the user is active', async () => {
  const { clock, page, reports } = presenceOf()
  for (let minute = 0; minute < 60; minute += 1) {
    await clock.advance(4 * 60_000)
    page.signal('activity')
  }
  expect(reports).toEqual([])
})

test('after five idle minutes, away is reported repeatedly, and then online once', async () => {
  const { clock, page, reports } = presenceOf()
  await clock.advance(5 * 60_000 - 1)
  expect(reports).toEqual([])
  await clock.advance(1)
  await clock.advance(60_000)
  expect(reports).toEqual(['away', 'away', 'away'])
  page.signal('activity')
  page.signal('activity')
  expect(reports.slice(3)).toEqual(['online'])
})

test('hiding the page for a while does not make the user away', async () => {
  const { clock, page, reports } = presenceOf()
  page.set({ isVisible: false })
  await clock.advance(4 * 60_000)
  page.set({ isVisible: true })
  await clock.advance(4 * 60_000)
  expect(reports).toEqual([])
})

test('a closing page reports offline', () => {
  const { page, reports } = presenceOf()
  page.signal('leave')
  expect(reports).toEqual(['offline'])
})

test('stopping leaves no timer or listener', () => {
  const { clock, page, presence } = presenceOf()
  presence.stop()
  expect([clock.waiting, page.listenerCount]).toEqual([0, 0])
})
