// @vitest-environment node
import { renderToString } from 'react-dom/server'
import { expect, it, vi } from 'vitest'
import { ChatProvider, Messenger, PresenceMenu, QuickAccess, UserChatInterface } from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE, timeline } from '../../src/testing/fake-client'

const WITH_BEN = conversation(PEOPLE.ben).id

it('renders on a server, without anything that depends on time or zone', () => {
  const errors = vi.spyOn(console, 'error')
  const client = new FakeClient(
    initialState({
      conversations: [conversation(PEOPLE.ben, { last_message_at: '2026-11-29T10:00:00Z' })],
      timelines: {
        [WITH_BEN]: timeline(WITH_BEN, [
          message(WITH_BEN, PEOPLE.ben, 'from the server', { created_at: '2026-11-29T10:00:00Z' }),
        ]),
      },
    }),
  )
  const html = renderToString(
    <ChatProvider client={client}>
      <QuickAccess onOpen={() => undefined} />
      <PresenceMenu />
      <Messenger conversationId={null} />
      <UserChatInterface conversationId={WITH_BEN} />
    </ChatProvider>,
  )
  expect(html).toContain('from the server')
  expect(html).toContain('<time dateTime="2026-11-29T10:00:00Z"')
  expect(html.replaceAll(/<[^>]*>/g, ' ')).not.toMatch(/Today|10:00|Online/)
  expect(errors.mock.calls).toEqual([])
})
