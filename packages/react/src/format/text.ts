/** A piece of a message's text. */
export type Token =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'link'; readonly text: string; readonly href: string }
  | { readonly kind: 'code'; readonly text: string }

// Code comes first, so that an address inside backticks is not a link. The local part of an email
// address has at most 64 characters (RFC 5321, 4.5.3.1.1). Without this limit, the search would run
// to the end of a long word from each of its characters.
const PATTERN = /`([^`\n]+)`|((?:https?:\/\/|www\.)[^\s<>"'`]+)|([\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+)/giu
const EMAIL_CHARACTER = /[\w.+-]/u

/**
 * Splits text into links, code spans and the rest. Links have the scheme http, https or mailto. The
 * time is linear in the length of any text, because the text is untrusted.
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

/**
 * Removes punctuation at the end of an address, because it belongs to the sentence. A closing
 * bracket stays if the address contains the opening one.
 */
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

/** Compiled on first use: compiling takes many milliseconds, and most texts do not need it. */
let emojiOnly: RegExp | null = null

/** Matches a letter, which nearly every message contains. Among emoji, only ℹ️ contains one. */
const LETTER = /[^\P{L}\u2139]/u

function emojiPattern(): RegExp {
  try {
    return new RegExp(String.raw`^(?:\p{RGI_Emoji}\s*){1,3}$`, 'v')
  } catch {
    // Browsers released up to 2022 lack the flag `v`. They show emoji in the size of other text.
    return /^(?!)/u
  }
}

/** Whether the text consists of one to three emoji. Such messages are shown large. */
export function isEmojiOnly(text: string): boolean {
  if (text.length > 60 || LETTER.test(text)) return false
  emojiOnly ??= emojiPattern()
  return emojiOnly.test(text.trim())
}

/** Returns the length in code points, which the server also counts. */
export function codePoints(text: string): number {
  let length = 0
  for (const _ of text) length++
  return length
}

/** Messages with more lines are folded. */
export const FOLD_LINES = 12

/** Messages with more UTF-16 code units are folded. */
export const FOLD_CHARACTERS = 1200

export function isLong(text: string): boolean {
  return text.length > FOLD_CHARACTERS || text.split('\n', FOLD_LINES + 1).length > FOLD_LINES
}

// Control characters that reorder the text around them (UAX #9, section 2).
const DIRECTION_CONTROLS = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu

/**
 * Prepares a text by another user, such as a name or a file name, for use within a line. Removes
 * line breaks, and control characters that could reorder the text itself or the text around it.
 */
export function inline(text: string | null | undefined): string {
  return (text ?? '').replaceAll(DIRECTION_CONTROLS, '').replaceAll(/\s+/gu, ' ').trim()
}

/** Returns the text as one line for previews, without backticks. */
export function oneLine(text: string): string {
  return inline(text.replaceAll('`', ''))
}
