// Names, files, statuses and addresses that another user has chosen must not mislead the reader,
// run code or slow down the page.

import type { Person, Presence, TimelineMessage } from '@rapport-chat/client'
import { act, fireEvent, render, waitFor } from '@testing-library/react'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ConversationsList, MessageBubble, UserChatInterface } from '../../src'
import { safeAddress } from '../../src/format/address'
import { conversationName, displayName, firstName, initials } from '../../src/format/names'
import { previewText } from '../../src/format/preview'
import { inline, isLong, oneLine } from '../../src/format/text'
import { rangesOf } from '../../src/format/message-text'
import { QuickPanel } from '../../src/navigation/quick-panel'
import { Avatar } from '../../src/parts/avatar'
import { en } from '../../src/strings/en'
import {
  conversation,
  FakeClient,
  initialState,
  message,
  PEOPLE,
  PREFERENCES,
  timeline,
} from '../../src/testing/fake-client'
import { renderWith } from './render'

const CONTROLS = [...'\u061C\u200E\u200F\u202A\u202B\u202C\u202D\u202E\u2066\u2067\u2068\u2069']

/** Displayed as "invoiceexe.pdf" if its control character is not removed. */
const FORGED = 'invoice\u202Efdp.exe'
/** The text that is displayed for `FORGED`. */
const READ = 'invoicefdp.exe'

describe('the address of a picture', () => {
  const picture = (avatar_url: string): string | null => {
    const { container, unmount } = render(<Avatar person={{ ...PEOPLE.ben, avatar_url }} />)
    const source = container.querySelector('img')?.getAttribute('src') ?? null
    unmount()
    return source
  }

  it('is requested only if it leads where it seems to', () => {
    expect(picture('https://cdn.example.com/ben.png')).toBe('https://cdn.example.com/ben.png')
    for (const address of ['//host/x', String.raw`\\host\x`, '../../logout', 'data:image/png;base64,AA', 'javascript:alert(1)']) {
      expect(picture(address), address).toBeNull()
    }
  })
})

describe('direction controls', () => {
  it('are all removed from a text inside a line', () => {
    for (const control of CONTROLS) expect(inline(`a${control}b`), control.codePointAt(0)?.toString(16)).toBe('ab')
    expect(inline(`a \n\t b${CONTROLS.join('')}\u2028c`)).toBe('a b c')
    // Joiners that are part of letters and emoji stay.
    expect(inline('👩‍💻 نص می‌خواهم')).toBe('👩‍💻 نص می‌خواهم')
  })

  it('alone do not count as a name', () => {
    expect(displayName({ full_name: CONTROLS.join(' '), email: 'a@example.com' }, en)).toBe('a@example.com')
    expect(conversationName({ title: '\u202E' }, { full_name: FORGED }, en)).toBe(READ)
    expect(previewText({ ...message('c', PEOPLE.ben, ''), message_type: 'file', file_name: '\u202E' }, en)).toBe(
      en.previewFile(en.file),
    )
  })

  const forger: Person = { ...PEOPLE.ben, full_name: `Ben ${FORGED}`, email: `${FORGED}@example.com` }
  const presence: Presence = {
    status: 'online',
    last_seen: null,
    status_text: FORGED,
    status_emoji: '\u202E🎉',
    manual_status: null,
    manual_until: null,
  }
  const from = (rest: Partial<TimelineMessage>): TimelineMessage => message(WITH_FORGER.id, forger, FORGED, rest)
  const last = {
    id: 'm',
    content: FORGED,
    created_at: new Date().toISOString(),
    file_name: FORGED,
    is_deleted: false,
    message_type: 'file' as const,
    sender_id: forger.id,
  }
  const WITH_FORGER = conversation(forger, { title: FORGED, last_message: last, unread_count: 1 })

  function forgedClient(): FakeClient {
    const file = { message_type: 'file' as const, file_name: FORGED, file_url: 'https://files.example/a' }
    const messages = [
      from({ seq: 1, ...file, content: '' }),
      from({ seq: 2, ...file, message_type: 'image', content: '' }),
      from({
        seq: 3,
        content: 'hello',
        is_pinned: true,
        reply_to: last,
        reply_to_id: 'm',
        reactions: [{ reaction: FORGED, emoji: FORGED, count: 1, me: false, user_ids: [forger.id] }],
      }),
    ]
    const client = new FakeClient(
      initialState({
        conversations: [WITH_FORGER],
        timelines: { [WITH_FORGER.id]: timeline(WITH_FORGER.id, messages) },
        people: { [forger.id]: forger },
        presence: { [forger.id]: presence },
        preferences: { ...PREFERENCES, quiet_start: null, quiet_end: null, dnd_until: null, browser_enabled: true },
        isLeader: true,
      }),
    )
    client.found = [forger]
    return client
  }
  const anyControl = new RegExp(`[${CONTROLS.join('')}]`, 'u')
  const everything = (): string => document.documentElement.outerHTML

  it('do not appear in any line, label or tooltip of a conversation and its list', () => {
    const client = forgedClient()
    renderWith(
      client,
      <>
        <ConversationsList onConversationSelect={() => {}} />
        <UserChatInterface conversationId={WITH_FORGER.id} />
      </>,
    )
    expect(everything()).toContain(READ)
    expect(document.querySelectorAll('[data-slot="file"]')).toHaveLength(1)
    expect(document.querySelector('[data-slot="header-status"]')?.textContent).toContain(READ)
    expect(document.querySelector('.rpt-reaction')?.getAttribute('title')).toContain(READ)
    expect(document.querySelector('[data-slot="file"]')?.getAttribute('download')).toBe(READ)
    expect(everything()).not.toMatch(anyControl)
    fireEvent.click(document.querySelector('[data-slot="image"]')!)
    expect(document.querySelector('dialog, [role="dialog"]')?.textContent).toContain(READ)
    expect(everything()).not.toMatch(anyControl)
  })

  it('do not appear in the panel of unread conversations', () => {
    renderWith(forgedClient(), <QuickPanel anchor={document.body} onClose={() => {}} onOpen={() => {}} />)
    expect(everything()).toContain(READ)
    expect(everything()).not.toMatch(anyControl)
  })

  it('in and around a link do not change how its address reads', () => {
    // If the link inherited the text's direction, it would be displayed as
    // "https://bank.example/elpmaxe.live//:sptth".
    const address = 'https://evil.example/elpmaxe.knab//:sptth'
    for (const text of [`\u202E${address}`, `${address.slice(0, 24)}\u202E${address.slice(24)}`]) {
      const { container } = renderWith(forgedClient(), <MessageBubble message={from({ content: text })} />)
      const link = container.querySelector('a.rpt-link')
      expect(link?.textContent).toBe(address)
      // An element with its own direction is isolated from the text around it.
      expect(link?.getAttribute('dir')).toBe('ltr')
    }
  })

  afterEach(() => vi.unstubAllGlobals())

  it.each([
    ['a text', {}],
    ['a file', { message_type: 'file' as const, file_name: FORGED }],
    ['a picture', { message_type: 'image' as const, file_name: FORGED }],
  ])('do not appear in an announcement or notification of %s', async (_, rest) => {
    const shown: string[] = []
    class FakeNotification extends EventTarget {
      static permission = 'granted'
      constructor(title: string, { body }: { body: string }) {
        super()
        shown.push(title, body)
      }
    }
    vi.stubGlobal('Notification', FakeNotification)
    vi.spyOn(document, 'hasFocus').mockReturnValue(false)
    const client = forgedClient()
    renderWith(client, <UserChatInterface conversationId={WITH_FORGER.id} />)
    act(() => client.emit({ type: 'message_received', message: from(rest), conversation: WITH_FORGER }))
    await waitFor(() => expect(shown).toHaveLength(2))
    expect(shown.join()).toContain(READ)
    expect(shown.join()).not.toMatch(anyControl)
    expect(everything()).not.toMatch(anyControl)
  })
})

describe('addresses', () => {
  it.each([
    'https://files.example/a/b.png?x=1&y=..#..',
    'http://files.example/a.b/..c/...',
    'blob:https://app.example/0f8f',
    '/files/a.png?next=/../x',
  ])('that browsers load are not changed: %s', (address) => {
    expect(safeAddress(address)).toBe(address)
  })

  it('are returned as the browser resolves them', () => {
    expect(safeAddress('HTTPS://Files.Example/a b')).toBe('https://files.example/a%20b')
    expect(safeAddress('/ä')).toBe('/%C3%A4')
  })

  it.each([
    'javascript:alert(1)',
    'data:text/html,x',
    'vbscript:x',
    'file:///etc/passwd',
    'blob',
    'files/a.png',
    'https://',
    'https://[broken',
    '//evil.example/x',
    '/\\evil.example/x',
    '\\\\evil.example/x',
    'https:\\\\evil.example/x',
    '/\t/evil.example/x',
    '\t//evil.example/x',
    'java\nscript:alert(1)',
    'https://files.example/a\0.png',
    'https://files.example/\u0085a.png',
    'https://files.example/chat/.\t./.\t./auth/v1/authorize?provider=x',
    'https://files.example/chat/.\n./x',
    'https://files.example/chat/..\r/x',
    'https://files.example/chat/%2\te./x',
    'https://files.example/chat/../x',
    'https://files.example/chat/%2e%2E/x',
    'https://files.example/chat/.%2e/x',
    'https://files.example/chat/./x',
    'https://files.example/chat/..',
    'https://files.example/chat/..?x',
    'https://files.example/chat/..#x',
    'https://files.example/chat\\..\\x',
    '/files/../x',
    '',
    null,
  ])('that lead elsewhere are refused: %j', (address) => {
    expect(safeAddress(address)).toBeNull()
  })

  it('of pictures receive no referrer', () => {
    const person = { ...PEOPLE.ben, avatar_url: 'https://pictures.example/ben.png' }
    const picture = message('c', PEOPLE.ben, '', { message_type: 'image', file_url: 'https://files.example/a.png' })
    render(
      <>
        <Avatar person={person} />
        <MessageBubble message={picture} />
      </>,
    )
    const client = new FakeClient(
      initialState({
        conversations: [conversation(PEOPLE.ben)],
        timelines: { [conversation(PEOPLE.ben).id]: timeline(conversation(PEOPLE.ben).id, [picture]) },
      }),
    )
    renderWith(client, <UserChatInterface conversationId={conversation(PEOPLE.ben).id} />)
    fireEvent.click(document.querySelector('section [data-slot="image"]')!)
    const pictures = [...document.querySelectorAll('img')]
    expect(pictures.map(({ className }) => className)).toContain('rpt-lightbox')
    expect(pictures.length).toBeGreaterThan(3)
    for (const img of pictures) expect(img.getAttribute('referrerpolicy'), img.src).toBe('no-referrer')
  })
})

describe('long texts', () => {
  // In quadratic time, these tests would take minutes.
  const LENGTH = 400_000
  it.each([
    ['spaces', `a${' '.repeat(LENGTH)}b`],
    ['line ends', '\n'.repeat(LENGTH)],
    ['backticks', '`'.repeat(LENGTH)],
    ['spaces and backticks', ' `'.repeat(LENGTH / 2)],
    ['direction controls', `a${'\u202E'.repeat(LENGTH)}b`],
    ['controls and spaces', '\u202E '.repeat(LENGTH / 2)],
    ['separators', '@.'.repeat(LENGTH / 2)],
    ['marks on one letter', `a${'\u0301'.repeat(LENGTH)}`],
    ['dots and slashes', '/.'.repeat(LENGTH / 2)],
    ['encoded dots', `https://a/${'%2e'.repeat(LENGTH / 4)}`],
    ['one word', 'a'.repeat(LENGTH)],
  ])('take linear time: %s', (_, text) => {
    const name = displayName({ full_name: text }, en)
    for (const shown of [inline(text), oneLine(text), firstName(name), initials(name), name])
      expect(shown.length).toBeLessThanOrEqual(LENGTH * 2)
    isLong(text)
    rangesOf(text, `${'a'.repeat(100)}b`)
    safeAddress(text)
    safeAddress(`/${text}`)
  })
})
