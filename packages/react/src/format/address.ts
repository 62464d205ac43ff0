// Browsers remove controls from an address and take "\" for "/", so with them an address leads
// elsewhere than it seems to.
const MISLEADING = /[\p{Cc}\\]/u

// A segment that leads out of its folder. "%2e" is a dot for browsers.
const DOTS = /(?:^|\/)(?:\.|%2e){1,2}(?:\/|$)/iu

const SCHEMES = ['http:', 'https:', 'blob:']

/** Any address: only what is relative to it is of interest. */
const OWN = 'http://own.invalid'

/**
 * Only addresses that a browser loads without running anything, and that lead where they seem to.
 * Returns what the browser makes of the address: a whole one, or a path on the page's own origin.
 */
export function safeAddress(address: string | null): string | null {
  if (!address || MISLEADING.test(address) || DOTS.test(address.split(/[?#]/u, 1)[0] ?? '')) return null
  const isPath = address.startsWith('/')
  if (!URL.canParse(address, isPath ? OWN : undefined)) return null
  const { href, origin, protocol } = new URL(address, isPath ? OWN : undefined)
  // "//host" is a path only at first sight.
  if (isPath) return origin === OWN ? href.slice(OWN.length) : null
  return SCHEMES.includes(protocol) ? href : null
}
