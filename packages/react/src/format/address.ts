// Browsers remove control characters from an address and treat "\" as "/". An address with one of
// them does not lead where it seems to.
const MISLEADING = /[\p{Cc}\\]/u

// A path segment of one or two dots. Browsers also treat "%2e" as a dot.
const DOTS = /(?:^|\/)(?:\.|%2e){1,2}(?:\/|$)/iu

const SCHEMES = ['http:', 'https:', 'blob:']

/** A placeholder for the page's origin, against which paths are resolved. */
const OWN = 'http://own.invalid'

/**
 * Returns the address as the browser resolves it: an absolute address, or a path on the page's own
 * origin. Returns null if the address could run code, or does not lead where it seems to.
 */
export function safeAddress(address: string | null): string | null {
  if (!address || MISLEADING.test(address) || DOTS.test(address.split(/[?#]/u, 1)[0] ?? '')) return null
  const isPath = address.startsWith('/')
  if (!URL.canParse(address, isPath ? OWN : undefined)) return null
  const { href, origin, protocol } = new URL(address, isPath ? OWN : undefined)
  // "//host" looks like a path but names another host.
  if (isPath) return origin === OWN ? href.slice(OWN.length) : null
  return SCHEMES.includes(protocol) ? href : null
}
