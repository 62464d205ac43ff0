import type { Preferences } from '@rapport-chat/client'
import { act, render, screen, waitFor } from '@testing-library/react'
import type { ReactNode } from 'react'
import userEvent from '@testing-library/user-event'
import { describe, expect, it } from 'vitest'
import { Avatar, ConversationsList, useUserPresence } from '../../src'
import { ChatProvider, PresenceMenu, QuickAccess } from '../../src/navigation'
import { lazyComponent } from '../../src/parts/lazy-component'
import { de } from '../../src/strings/de'
import { conversation, FakeClient, initialState, PEOPLE } from '../../src/testing/fake-client'
import { renderWith } from './render'

const { ana, ben } = PEOPLE

/** The signed-in user as known before the server has responded. */
const NAMELESS = { ...initialState().me, id: ana.id, full_name: null, email: null, avatar_url: null }

describe('QuickAccess', () => {
  const unread = initialState({ conversations: [conversation(ben, { unread_count: 2 })] })

  it('opens a conversation', async () => {
    const opened: (string | null)[] = []
    renderWith(new FakeClient(unread), <QuickAccess onOpen={(id) => opened.push(id)} />)
    await userEvent.click(screen.getByRole('button'))
    await userEvent.click(await screen.findByRole('button', { name: /Ben Olsen/ }))
    expect(opened).toEqual([conversation(ben).id])
    expect(screen.queryByRole('dialog')).toBeNull()
  })

  it("uses the application's language", async () => {
    renderWith(new FakeClient(unread), <QuickAccess onOpen={() => undefined} />, { strings: de })
    await userEvent.click(screen.getByRole('button'))
    expect((await screen.findByRole('dialog')).getAttribute('aria-label')).toBe(de.messages)
  })
})

function MyStatus(): ReactNode {
  return <output>{useUserPresence().myStatus}</output>
}

describe('PresenceMenu', () => {
  it('names the user and the status only when they are known', async () => {
    const client = new FakeClient(initialState({ me: NAMELESS, presence: {} }))
    const { container } = renderWith(client, <PresenceMenu />)
    const button = screen.getByRole('button')
    expect(button.getAttribute('aria-label')).toBe('Set status')
    expect(button.textContent).toBe('')
    expect(container.querySelector('[data-slot="presence"]')).toBeNull()
    act(() => client.set({ me: { ...NAMELESS, full_name: 'Ana Admin' } }))
    expect(button.getAttribute('aria-label')).toBe('Set status: Ana Admin')
    expect(button.textContent).toBe('AA')
  })

  const offline = {
    status: 'offline' as const,
    last_seen: null,
    status_text: null,
    status_emoji: null,
    manual_status: null,
    manual_until: null,
  }
  const chosen = { ...offline, manual_status: 'offline' as const }
  const { connection } = initialState()
  const shared = { share_presence: true } as Preferences
  const hidden = { share_presence: false } as Preferences

  it.each([
    // The server has not noticed the page yet.
    ['connecting', offline, shared, 'Online'],
    ['joining', offline, shared, 'Online'],
    ['catching_up', offline, shared, 'Online'],
    ['live', offline, shared, 'Online'],
    // It is not known whether the user shares their presence.
    ['live', offline, null, undefined],
    ['live', offline, hidden, 'Offline'],
    ['connecting', chosen, null, 'Offline'],
    ['live', chosen, shared, 'Offline'],
    ['live', { ...offline, status: 'busy' as const }, null, 'Busy'],
    // The page is not connected.
    ['reconnecting', offline, shared, 'Offline'],
    ['offline', offline, shared, 'Offline'],
  ] as const)('%s, %j: %s', (status, own, known, label) => {
    const state = initialState({
      presence: { [ana.id]: own },
      connection: { ...connection, status },
      preferences: known,
    })
    const { container } = renderWith(
      new FakeClient(state),
      <>
        <PresenceMenu />
        <MyStatus />
      </>,
    )
    expect(screen.getByRole('button').getAttribute('aria-label')).toBe(
      ['Set status: Ana Admin', label].filter(Boolean).join(', '),
    )
    expect(container.querySelector('output')?.textContent).toBe((label ?? 'Online').toLowerCase())
  })

  it('offers the choices', async () => {
    renderWith(new FakeClient(), <PresenceMenu />)
    await userEvent.click(screen.getByRole('button'))
    expect(await screen.findAllByRole('menuitemradio')).toHaveLength(4)
  })
})

describe('Avatar', () => {
  it('shows no initials while the name is unknown', () => {
    const { container } = render(<Avatar person={{ id: ana.id }} />)
    expect(container.textContent).toBe('')
    expect(container.querySelector('svg')).not.toBeNull()
  })
})

describe('the list of a person without conversations', () => {
  it('shows placeholders while it loads, and then an empty state', async () => {
    const client = new FakeClient(initialState({ conversations: [], conversationsStatus: 'loading' }))
    renderWith(client, <ConversationsList onConversationSelect={() => undefined} />)
    const placeholders = screen.getByRole('status', { name: 'Loading conversations' })
    await waitFor(() => expect(placeholders.hasAttribute('data-late')).toBe(true))
    act(() => client.set({ conversationsStatus: 'ready' }))
    expect(screen.getByRole('heading', { name: 'No conversations yet' })).toBeTruthy()
  })
})

describe('texts', () => {
  it('are English in all parts if the application provides none', () => {
    const client = new FakeClient()
    render(
      <ChatProvider client={client}>
        <PresenceMenu />
        <ConversationsList onConversationSelect={() => undefined} />
      </ChatProvider>,
    )
    expect(screen.getByRole('button', { name: /^Set status/ })).toBeTruthy()
    expect(screen.getByRole('navigation', { name: 'Conversations' })).toBeTruthy()
  })
})

describe('lazyComponent', () => {
  it('that cannot be loaded throws nothing, and is loaded when it is mounted again', async () => {
    let attempts = 0
    const { View } = lazyComponent<{ text: string }>(async () => {
      attempts += 1
      if (attempts === 1) throw new TypeError('Failed to fetch')
      return ({ text }) => <p>{text}</p>
    })
    const first = render(<View text="here" />, { reactStrictMode: false })
    await act(async () => undefined)
    expect(first.container.textContent).toBe('')
    first.unmount()
    render(<View text="here" />)
    expect(await screen.findByText('here')).toBeTruthy()
    expect(attempts).toBe(2)
  })
})
