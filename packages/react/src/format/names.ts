import type { NavigationStrings } from '../strings/navigation-en'
import { inline } from './text'

interface Named {
  readonly full_name?: string | null
  readonly email?: string | null
}

/** The name of a person, or their address; empty while neither is known. */
export function knownName(person: Named | null | undefined): string {
  return inline(person?.full_name) || inline(person?.email)
}

export function displayName(
  person: Named | null | undefined,
  { unknownPerson }: Pick<NavigationStrings, 'unknownPerson'>,
): string {
  return knownName(person) || unknownPerson
}

/** The title of a conversation, or the name of the other person. */
export function conversationName(
  conversation: { readonly title: string | null } | null | undefined,
  person: Named | null | undefined,
  strings: Pick<NavigationStrings, 'unknownPerson'>,
): string {
  return inline(conversation?.title) || displayName(person, strings)
}

/** The part of a name that is used in a running sentence. */
export function firstName(name: string): string {
  return name.split(/\s+/u)[0] || name
}

const segmenter =
  typeof Intl.Segmenter === 'function' ? new Intl.Segmenter(undefined, { granularity: 'grapheme' }) : null

/** First letters of the first and last word. Letters may consist of several code points. */
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

/** How many tones `styles.css` defines for avatars. */
export const AVATAR_TONES = 8

/** A stable tone for an id. */
export function toneOf(id: string): number {
  let hash = 0
  for (let i = 0; i < id.length; i++) hash = (hash * 31 + id.charCodeAt(i)) >>> 0
  return hash % AVATAR_TONES
}
