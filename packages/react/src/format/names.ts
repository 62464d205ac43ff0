import type { NavigationStrings } from '../strings/navigation-en'
import { inline } from './text'

interface Named {
  readonly full_name?: string | null
  readonly email?: string | null
}

/** Returns a person's name or, if it is unknown, their email address. Empty if neither is known. */
export function knownName(person: Named | null | undefined): string {
  return inline(person?.full_name) || inline(person?.email)
}

export function displayName(
  person: Named | null | undefined,
  { unknownPerson }: Pick<NavigationStrings, 'unknownPerson'>,
): string {
  return knownName(person) || unknownPerson
}

/** Returns the title of a conversation or, if it has none, the name of the other person. */
export function conversationName(
  conversation: { readonly title: string | null } | null | undefined,
  person: Named | null | undefined,
  strings: Pick<NavigationStrings, 'unknownPerson'>,
): string {
  return inline(conversation?.title) || displayName(person, strings)
}

/** Returns the first name, for use in a sentence. */
export function firstName(name: string): string {
  return name.split(/\s+/u)[0] || name
}

const segmenter =
  typeof Intl.Segmenter === 'function' ? new Intl.Segmenter(undefined, { granularity: 'grapheme' }) : null

/** Returns the first letters of the first and last word. A letter may have several code points. */
export function initials(name: string): string {
  const words = name.split(/[\s@._-]+/u).filter(Boolean)
  const ends = words.length > 1 ? [words[0], words.at(-1)] : words.slice(0, 1)
  return ends
    .map((word) => firstLetter(word ?? ''))
    .join('')
    .toLocaleUpperCase()
}

function firstLetter(word: string): string {
  if (!segmenter) return [...word][0] ?? ''
  for (const { segment } of segmenter.segment(word)) return segment
  return ''
}

/** The number of avatar tones that `styles/2-parts.css` defines. */
export const AVATAR_TONES = 8

/** Returns the same avatar tone each time for the same id. */
export function toneOf(id: string): number {
  let hash = 0
  for (let i = 0; i < id.length; i++) hash = (hash * 31 + id.charCodeAt(i)) >>> 0
  return hash % AVATAR_TONES
}
