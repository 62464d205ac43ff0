/** A piece of a message's text. Everything else in the text is plain. */
export type Token =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'link'; readonly text: string; readonly href: string }
  | { readonly kind: 'code'; readonly text: string }

// Code first, so that an address inside backticks is not a link. The part of an e-mail address before
// the "@" has at most 64 characters (RFC 5321, 4.5.3.1.1). Without that limit a long word would be
// searched to its end from each of its characters.
const PATTERN = /`([^`\n]+)`|((?:https?:\/\/|www\.)[^\s<>"'`]+)|([\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+)/giu
const EMAIL_CHARACTER = /[\w.+-]/u

/**
 * Splits text into links, code spans and the rest. Only http, https and mailto become links. The time
 * is linear in the length of the text, whatever it contains: anyone may have written it.
 */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = []
  let end = 0
  const plain = (until: number): void => {
    if (until > end) tokens.push({ kind: 'text', text: text.slice(end, until) })
  }
  for (const match of text.matchAll(PATTERN)) {
    const [whole, code, address, email] = match
    plain(match.index)
    if (code !== undefined) {
      tokens.push({ kind: 'code', text: code })
      end = match.index + whole.length
      continue
    }
    const shown = address === undefined ? (email ?? '') : withoutTrailing(address)
    const isPartOfWord = email !== undefined && EMAIL_CHARACTER.test(text[match.index - 1] ?? '')
    const href = address === undefined ? `mailto:${shown}` : shown.startsWith('www.') ? `https://${shown}` : shown
    if (!isPartOfWord && URL.canParse(href)) tokens.push({ kind: 'link', text: shown, href })
    else tokens.push({ kind: 'text', text: shown })
    end = match.index + shown.length
  }
  plain(text.length)
  return tokens
}

/** Punctuation at the end belongs to the sentence; a closing bracket too, unless the link opens it. */
function withoutTrailing(address: string): string {
  let surplus = 0
  for (const character of address) surplus += character === ')' ? 1 : character === '(' ? -1 : 0
  let end = address.length
  for (; end > 0; end--) {
    const last = address.charAt(end - 1)
    if (last === ')' && surplus > 0) surplus--
    else if (!'.,;:!?…'.includes(last)) break
  }
  return address.slice(0, end)
}

/** Compiling the pattern takes many milliseconds, so only a text that may match it pays for that. */
let emojiOnly: RegExp | null = null

/** Nearly every message contains a letter, and of all emoji only ℹ️ does. */
const LETTER = /[^\P{L}\u2139]/u

function emojiPattern(): RegExp {
  try {
    return new RegExp(String.raw`^(?:\p{RGI_Emoji}\s*){1,3}$`, 'v')
  } catch {
    // Browsers of 2022 and older lack the flag. There, an emoji is shown like any other text.
    return /^(?!)/u
  }
}

/** Whether the text is one to three emoji and nothing else. Such messages are shown large. */
export function isEmojiOnly(text: string): boolean {
  if (text.length > 60 || LETTER.test(text)) return false
  emojiOnly ??= emojiPattern()
  return emojiOnly.test(text.trim())
}

/** The length in code points, as the server counts it. */
export function codePoints(text: string): number {
  let length = 0
  for (const _ of text) length++
  return length
}

/** Longer messages are folded. */
export const FOLD_LINES = 12
export const FOLD_CHARACTERS = 1200

export function isLong(text: string): boolean {
  return text.length > FOLD_CHARACTERS || text.split('\n', FOLD_LINES + 1).length > FOLD_LINES
}

// Controls that reorder the text around them (UAX #9, 2).
const DIRECTION_CONTROLS = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu

/**
 * A text of others as a part of a line, such as a name or the name of a file: without line breaks,
 * and without controls that would change how its neighbours read, or the end of the text itself.
 */
export function inline(text: string | null | undefined): string {
  return (text ?? '').replaceAll(DIRECTION_CONTROLS, '').replaceAll(/\s+/gu, ' ').trim()
}

/** One line of plain text for previews: line breaks and code marks are dropped. */
export function oneLine(text: string): string {
  return inline(text.replaceAll('`', ''))
}
