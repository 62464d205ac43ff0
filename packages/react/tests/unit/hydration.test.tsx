import { act } from '@testing-library/react'
import { StrictMode, type ReactNode } from 'react'
import { hydrateRoot } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, expect, it, vi } from 'vitest'
import { ChatProvider, Messenger, PresenceMenu, QuickAccess } from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE, timeline } from '../../src/testing/fake-client'

const { ana, ben } = PEOPLE
const WITH_BEN = conversation(ben).id

afterEach(() => vi.restoreAllMocks())

it('hydrates the HTML of the server without a warning', async () => {
  const errors = vi.spyOn(console, 'error').mockImplementation(() => undefined)
  const at = '2026-11-29T10:00:00Z'
  const client = new FakeClient(
    initialState({
      conversations: [conversation(ben, { last_message_at: at, unread_count: 1 })],
      unread: { total: 1, mentions: 0, byConversation: { [WITH_BEN]: 1 } },
      timelines: {
        [WITH_BEN]: timeline(WITH_BEN, [
          message(WITH_BEN, ana, 'mine', { created_at: at }),
          message(WITH_BEN, ben, 'https://example.com', { created_at: at }),
        ]),
      },
    }),
  )
  const page: ReactNode = (
    <StrictMode>
      <ChatProvider client={client}>
        <QuickAccess onOpen={() => undefined} />
        <PresenceMenu />
        <Messenger conversationId={WITH_BEN} />
      </ChatProvider>
    </StrictMode>
  )
  const container = document.createElement('div')
  document.body.append(container)
  container.innerHTML = renderToString(page)
  // React 18 warns about layout effects here, because `document` exists, unlike on a server.
  // `server.test.tsx` checks rendering on a server.
  errors.mockClear()
  const row = container.querySelector('[data-slot="message-row"]')
  const root = await act(async () => hydrateRoot(container, page))
  expect(errors.mock.calls).toEqual([])
  expect(row?.isConnected).toBe(true)
  await act(async () => root.unmount())
  container.remove()
})
