import { de } from '@rapport-chat/react/strings/de'
import { ar } from '@rapport-chat/react/strings/ar'
import { en } from '@rapport-chat/react/strings/en'
import type { ChatStrings } from '@rapport-chat/react'

const LANGUAGES: Record<string, ChatStrings> = { en, de, ar }

export interface PageOptions {
  readonly theme: 'light' | 'dark' | 'auto'
  readonly strings: ChatStrings
}

/** Reads the theme and language from the address, for example `?theme=dark&lang=ar`. */
export function pageOptions(): PageOptions {
  const parameters = new URLSearchParams(location.search)
  const theme = parameters.get('theme')
  const strings = LANGUAGES[parameters.get('lang') ?? 'en'] ?? en
  return { theme: theme === 'light' || theme === 'dark' ? theme : 'auto', strings }
}

/** Applies the theme and language to the page itself. */
export function applyToPage({ theme, strings }: PageOptions): void {
  const { documentElement: root } = document
  root.lang = strings.locale
  root.dir = strings.dir
  if (theme !== 'auto') root.dataset['theme'] = theme
}
