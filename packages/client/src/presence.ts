// Reports when the user is away, returns, or leaves the page. An open socket already makes the user
// online, so nothing is reported while the user is active.

import type { Cancel, Clock } from './clock'
import type { Page } from './page'

/** The user is away after this time without input. A hidden page receives none. */
const IDLE_MS = 5 * 60 * 1_000

export interface PresenceReporterSettings {
  clock: Clock
  page: Page
  /** The time in milliseconds for which a report is valid. */
  ttlMs(): number
  report(status: 'online' | 'away' | 'offline'): void
}

export class PresenceReporter {
  readonly #settings: PresenceReporterSettings
  #isAway = false
  #cancelTimer: Cancel = () => {}
  #stopListening: Cancel = () => {}

  constructor(settings: PresenceReporterSettings) {
    this.#settings = settings
  }

  start(): void {
    this.stop()
    const { page, report } = this.#settings
    this.#stopListening = page.listen((signal) => {
      if (signal === 'leave') report('offline')
      else if (signal === 'activity' || signal === 'return' || (signal === 'attention' && page.isVisible()))
        this.active()
    })
    this.#waitForIdle()
  }

  stop(): void {
    this.#cancelTimer()
    this.#stopListening()
    this.#isAway = false
  }

  /** Records that the user is active, in this tab or another one. */
  active(): void {
    if (this.#isAway) {
      this.#isAway = false
      this.#settings.report('online')
    }
    this.#waitForIdle()
  }

  #waitForIdle(): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#settings.clock.after(IDLE_MS, () => this.#away())
  }

  #away(): void {
    const { clock, report, ttlMs } = this.#settings
    this.#isAway = true
    report('away')
    this.#cancelTimer = clock.after(ttlMs() / 2, () => this.#away())
  }
}
