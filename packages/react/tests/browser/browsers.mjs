// The same small page object for both browsers, so that each check is written only once.
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'
import puppeteer from 'puppeteer-core'

const found = (name, paths) => {
  const path = process.env[name] ?? paths.find(existsSync)
  if (!path) throw new Error(`no browser found; set ${name}`)
  return path
}
const CHROMIUM = () => found('CHROMIUM', ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'])
const FIREFOX = () => found('FIREFOX', ['/usr/bin/firefox-esr', '/usr/bin/firefox'])

/** `--no-sandbox`: Chromium's sandbox does not work as root, and containers run as root. */
export const launchChromium = () =>
  chromium.launch({ executablePath: CHROMIUM(), args: ['--no-sandbox', '--disable-dev-shm-usage'] })

export const launchFirefox = () =>
  puppeteer.launch({ browser: 'firefox', protocol: 'webDriverBiDi', executablePath: FIREFOX(), headless: true })

export async function openChromium(address) {
  const browser = await launchChromium()
  const page = await browser.newPage({ viewport: { width: 800, height: 700 } })
  await page.goto(address)
  return {
    evaluate: (...args) => page.evaluate(...args),
    moveTo: (x, y) => page.mouse.move(x, y),
    wheel: (dy) => page.mouse.wheel(0, dy),
    close: () => browser.close(),
  }
}

export async function openFirefox(address) {
  const browser = await launchFirefox()
  const page = await browser.newPage()
  await page.setViewport({ width: 800, height: 700 })
  await page.goto(address)
  return {
    evaluate: (...args) => page.evaluate(...args),
    moveTo: (x, y) => page.mouse.move(x, y),
    wheel: (dy) => page.mouse.wheel({ deltaY: dy }),
    close: () => browser.close(),
  }
}
