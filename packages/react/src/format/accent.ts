/** A fill and its text colour, as values for `--rpt-own` and `--rpt-own-foreground`. */
export interface Accent {
  readonly own: string
  readonly ownForeground: string
}

type Rgb = readonly [number, number, number]

/** The contrast that WCAG 2.2 AA requires for text. */
const TEXT_CONTRAST = 4.5

/**
 * Makes a brand colour usable under white text. A colour that is too light is darkened, without
 * changing its hue, until its contrast with white is 4.5:1.
 */
export function accentFrom(color: string): Accent {
  const white: Rgb = [255, 255, 255]
  let fill = parseHex(color)
  // Steps of 2 % keep the result close to the brand colour.
  for (let i = 0; i < 100 && contrast(fill, white) < TEXT_CONTRAST; i++)
    fill = [fill[0] * 0.98, fill[1] * 0.98, fill[2] * 0.98]
  return { own: toHex(fill), ownForeground: '#ffffff' }
}

export function contrast(a: Rgb, b: Rgb): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x)
  return ((light ?? 0) + 0.05) / ((dark ?? 0) + 0.05)
}

function luminance([r, g, b]: Rgb): number {
  const linear = (value: number): number => {
    const share = value / 255
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  }
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

export function parseHex(color: string): Rgb {
  const hex = color.replace('#', '')
  const full = hex.length === 3 ? [...hex].map((digit) => digit + digit).join('') : hex
  const value = Number.parseInt(full, 16)
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255]
}

function toHex(color: Rgb): string {
  return `#${color.map((value) => Math.round(value).toString(16).padStart(2, '0')).join('')}`
}
