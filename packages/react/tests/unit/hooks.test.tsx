import { act, renderHook, waitFor } from '@testing-library/react'
import type { ReactNode } from 'react'
import { describe, expect, it } from 'vitest'
import {
  ChatProvider,
  useConnection,
  useConversations,
  useDraft,
  usePreferences,
  useRealtimeChat,
  useTypingIndicator,
  useUnreadCount,
  useUserPresence,
  useUserSearch,
} from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE, timeline } from '../../src/testing/fake-client'

const { ana, ben, chloe } = PEOPLE
const WITH_BEN = conversation(ben).id

const under = (client: FakeClient) => ({
  wrapper: ({ children }: { children: ReactNode }) => <ChatProvider client={client}>{children}</ChatProvider>,
})

describe('the provider', () => {
  it('starts the client once, and stops it when it is unmounted', () => {
    const client = new FakeClient()
    const { unmount } = renderHook(() => useConnection(), under(client))
    expect(client.started).toBe(1)
    unmount()
    expect(client.started).toBe(0)
    expect(client.listenerCount).toBe(0)
  })
})

describe('useRealtimeChat', () => {
  const clientWith = (count: number): FakeClient =>
    new FakeClient(
      initialState({
        timelines: {
          [WITH_BEN]: timeline(
            WITH_BEN,
            Array.from({ length: count }, (_, i) => message(WITH_BEN, ben, `${i}`, { seq: i + 1 })),
          ),
        },
      }),
    )

  it('opens the conversation once, and closes it on unmount', () => {
    const client = clientWith(1)
    const { unmount } = renderHook(() => useRealtimeChat(WITH_BEN), under(client))
    expect(client.conversation(WITH_BEN).opened).toBe(1)
    unmount()
    expect(client.conversation(WITH_BEN).opened).toBe(0)
  })

  it('shows a sent message immediately, as `sending`', () => {
    const client = clientWith(1)
    const { result } = renderHook(() => useRealtimeChat(WITH_BEN), under(client))
    act(() => void result.current.send('hello'))
    expect(result.current.messages.at(-1)?.content).toBe('hello')
    expect(result.current.messages.at(-1)?.state).toBe('sending')
  })

  it('returns the same functions each time', () => {
    const client = clientWith(1)
    const { result } = renderHook(() => useRealtimeChat(WITH_BEN), under(client))
    const { send, loadOlder, react } = result.current
    act(() => client.conversation(WITH_BEN).change({ hasOlder: true }))
    expect(result.current.hasOlder).toBe(true)
    expect([result.current.send, result.current.loadOlder, result.current.react]).toEqual([send, loadOlder, react])
  })

  it('does not render again when another conversation changes', () => {
    const client = clientWith(1)
    let renders = 0
    renderHook(() => (renders++, useRealtimeChat(WITH_BEN)), under(client))
    const before = renders
    act(() => client.conversation('another').change({ hasOlder: true }))
    expect(renders).toBe(before)
  })
})

describe('the other hooks', () => {
  it('filter conversations', () => {
    const client = new FakeClient(
      initialState({
        conversations: [
          conversation(ben, { unread_count: 1 }),
          conversation(chloe),
          conversation(PEOPLE.max, { is_archived: true }),
        ],
      }),
    )
    const names = (filter: 'all' | 'unread' | 'archived') =>
      renderHook(() => useConversations({ filter }), under(client)).result.current.conversations.map(
        ({ other_user: person }) => person?.full_name,
      )
    expect(names('all')).toEqual([ben.full_name, chloe.full_name])
    expect(names('unread')).toEqual([ben.full_name])
    expect(names('archived')).toEqual([PEOPLE.max.full_name])
  })

  it('count unread messages', () => {
    const client = new FakeClient()
    const { result } = renderHook(() => useUnreadCount(), under(client))
    act(() => client.set({ unread: { total: 3, mentions: 1, byConversation: { x: 3 } } }))
    expect(result.current.total).toBe(3)
  })

  it('return the names of users who are typing', () => {
    const client = new FakeClient()
    const { result } = renderHook(() => useTypingIndicator(WITH_BEN), under(client))
    expect(result.current.isTyping).toBe(false)
    act(() => client.set({ typing: { [WITH_BEN]: [ben.id] } }))
    expect(result.current.typingNames).toEqual(['Ben'])
  })

  it('return who is online', () => {
    const client = new FakeClient()
    const { result } = renderHook(() => useUserPresence(ben.id), under(client))
    expect(client.called('watchPresence')).toContainEqual([[ben.id]])
    act(() =>
      client.set({
        presence: {
          [ben.id]: {
            status: 'online',
            last_seen: null,
            status_text: null,
            status_emoji: null,
            manual_status: null,
            manual_until: null,
          },
        },
      }),
    )
    expect(result.current.isOnline(ben.id)).toBe(true)
    expect(result.current.onlineUsers).toEqual([ben.id])
  })

  it('search once after a pause, with at least two characters', async () => {
    const client = new FakeClient()
    client.found = [ben, chloe]
    const { result, rerender } = renderHook(({ query }) => useUserSearch(query), {
      ...under(client),
      initialProps: { query: 'b' },
    })
    rerender({ query: 'be' })
    rerender({ query: 'ben' })
    await waitFor(() => expect(result.current.people.map(({ id }) => id)).toEqual([ben.id]))
    expect(client.called('searchUsers')).toEqual([['ben']])
  })

  it('keep a draft in the client', () => {
    const client = new FakeClient()
    const { result } = renderHook(() => useDraft(WITH_BEN), under(client))
    act(() => result.current.setDraft('half a'))
    expect(result.current.draft).toBe('half a')
    expect(client.conversation(WITH_BEN).getDraft()).toBe('half a')
  })

  it('keep the draft when the session ends (`signed_out`), and delete it when the user signs out (`forgotten`)', () => {
    const client = new FakeClient()
    const { result } = renderHook(() => useDraft(WITH_BEN), under(client))
    act(() => result.current.setDraft('half a'))
    act(() => client.emit({ type: 'signed_out' }))
    expect(result.current.draft).toBe('half a')
    client.conversation(WITH_BEN).setDraft('')
    act(() => client.emit({ type: 'forgotten' }))
    expect(result.current.draft).toBe('')
  })

  it('load the preferences when they are first needed', () => {
    const client = new FakeClient()
    renderHook(() => usePreferences(), under(client))
    expect(client.called('loadPreferences').length).toBeGreaterThan(0)
  })

  it('throw without a provider', () => {
    expect(() => renderHook(() => useUnreadCount())).toThrow('needs a <ChatProvider>')
  })

  it('are tested with a client of Ana', () => expect(new FakeClient().userId).toBe(ana.id))
})
