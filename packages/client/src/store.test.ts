import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { conversation, CONVERSATION, ME, message, PEER, receipt, rowOf, syncPage } from '../test/fixtures'
import { actions, Model, type Fact } from '../test/model'
import type { Input } from './inputs'
import type { Outgoing } from './outbox'
import { Store } from './store'
import type { TimelineMessage } from './types'
import type * as wire from './wire'

function storeOf({
  outgoing = [],
  received = () => {},
}: { outgoing?: Outgoing[]; received?: (message: wire.Message) => void } = {}) {
  let isIncomplete = false
  const store = new Store({
    userId: ME,
    now: () => 0,
    outgoing: () => outgoing,
    outgoingCount: () => outgoing.length,
    draft: () => undefined,
    onIncomplete: () => (isIncomplete = true),
    onReturned: () => {},
    onReceived: received,
  })
  return {
    store,
    /** Returns whether `onIncomplete` was called since the last call of this function. */
    takeIncomplete: () => {
      const before = isIncomplete
      isIncomplete = false
      return before
    },
  }
}

const synced = (page: wire.SyncPage): Input => ({ type: 'synced', page, isFirstLoad: false, isLive: false })
const row = (
  table: string,
  record: Record<string, unknown>,
  action: 'INSERT' | 'UPDATE' | 'DELETE' = 'UPDATE',
): Input => ({ type: 'row', table, action, row: record })

/** Creates a store that displays the conversation from its beginning. */
function displayed(page: wire.SyncPage, options: Parameters<typeof storeOf>[0] = {}) {
  const built = storeOf(options)
  built.store.hold(CONVERSATION)
  built.store.apply(synced(page))
  built.store.addPage(CONVERSATION, { messages: page.messages, hasOlder: false, hasNewer: false })
  return built
}

const messagesOf = (store: Store): readonly TimelineMessage[] => store.getTimeline(CONVERSATION).messages

describe('merging', () => {
  test('rows and responses in any order, even repeated, yield the state of a fresh load', () => {
    const runs = actions.chain((steps) => {
      const { facts } = new Model(steps)
      const orders: fc.Arbitrary<Fact[]> =
        facts.length === 0 ? fc.constant([]) : fc.array(fc.constantFrom(...facts), { maxLength: facts.length * 3 })
      return fc.record({ steps: fc.constant(steps), order: orders, at: fc.nat(facts.length * 3) })
    })
    fc.assert(
      fc.property(runs, ({ steps, order, at }) => {
        const fresh = new Model(steps).fresh()
        const expected = displayed(fresh).store
        const { store, takeIncomplete } = displayed(syncPage({ conversations: [conversation()] }))
        const take = (fact: Fact) =>
          fact.type === 'input' ? store.apply(fact.input) : fact.messages.forEach((answer) => store.putAnswer(answer))
        order.slice(0, at).forEach(take)
        store.apply(synced(fresh))
        takeIncomplete()
        order.slice(at).forEach(take)
        // When a change was announced without its content, the engine requests a `/sync`. Here,
        // `fresh` is the response.
        if (takeIncomplete()) store.apply(synced(fresh))
        expect(messagesOf(store)).toEqual(messagesOf(expected))
        expect(store.getState().conversations).toEqual(expected.getState().conversations)
      }),
      { numRuns: 300 },
    )
  })

  test('rows from the socket, and the requests that they cause, yield the state of a fresh load', () => {
    fc.assert(
      fc.property(actions, (steps) => {
        const fresh = new Model(steps).fresh()
        const { store, takeIncomplete } = displayed(
          syncPage({ conversations: [conversation()], receipts: [receipt(PEER, 0)] }),
        )
        for (let count = 1; count <= steps.length; count += 1) {
          const [before, after] = [new Model(steps.slice(0, count - 1)), new Model(steps.slice(0, count))]
          for (const fact of after.facts.slice(before.facts.length)) if (fact.type === 'input') store.apply(fact.input)
          if (takeIncomplete()) store.apply(synced(after.fresh()))
        }
        const expected = displayed(fresh).store
        expect(messagesOf(store)).toEqual(messagesOf(expected))
      }),
      { numRuns: 300 },
    )
  })

  test('no row or response replaces a displayed message with an older one', () => {
    fc.assert(
      fc.property(actions, fc.infiniteStream(fc.nat()), (steps, picks) => {
        const { facts } = new Model(steps)
        const { store } = displayed(syncPage({ conversations: [conversation()] }))
        const revisions = new Map<string, number>()
        for (const _ of facts) {
          const fact = facts[picks.next().value % facts.length]!
          if (fact.type === 'input') store.apply(fact.input)
          else fact.messages.forEach((answer) => store.putAnswer(answer))
          for (const { id, rev } of messagesOf(store)) {
            expect(rev).toBeGreaterThanOrEqual(revisions.get(id) ?? 0)
            revisions.set(id, rev)
          }
        }
      }),
      { numRuns: 100 },
    )
  })

  test('an unsent message keeps its key when it is stored', () => {
    const echo: Outgoing = {
      key: 'key1',
      conversationId: CONVERSATION,
      content: 'Hello',
      messageType: 'text',
      replyToId: null,
      metadata: {},
      file: null,
      createdAt: 0,
      state: 'sending',
      error: null,
    }
    const { store } = displayed(syncPage({ conversations: [conversation()] }), { outgoing: [echo] })
    expect(messagesOf(store).map(({ key, state }) => [key, state])).toEqual([['key1', 'sending']])
    const stored = message({ seq: 1, sender_id: ME, client_message_id: 'key1', content: 'Hello' })
    store.apply(row('user_messages', rowOf(stored), 'INSERT'))
    expect(messagesOf(store).map(({ key, state, id }) => [key, state, id])).toEqual([['key1', 'sent', 'm1']])
  })

  test('a reaction is shown at once, and disappears if the server does not have it', () => {
    const { store, takeIncomplete } = displayed(
      syncPage({ conversations: [conversation({ last_seq: 1, rev: 1 })], messages: [message({ seq: 1 })] }),
    )
    takeIncomplete()
    store.apply(
      row(
        'message_reactions',
        { id: 'r', message_id: 'm1', conversation_id: CONVERSATION, user_id: PEER, reaction: '👍' },
        'INSERT',
      ),
    )
    expect(messagesOf(store)[0]?.reactions).toMatchObject([{ reaction: '👍', count: 1, me: false }])
    expect(takeIncomplete()).toBe(true)
    store.apply(synced(syncPage()))
    expect(messagesOf(store)[0]?.reactions).toEqual([])
  })

  test('reactions in conversations that are not displayed cause no request', () => {
    const { store, takeIncomplete } = storeOf()
    store.apply(synced(syncPage({ conversations: [conversation()] })))
    const record = { id: 'r', message_id: 'm1', conversation_id: CONVERSATION, user_id: PEER, reaction: '👍' }
    store.apply(row('message_reactions', record, 'INSERT'))
    store.apply(row('message_reactions', { id: 'r' }, 'DELETE'))
    expect(takeIncomplete()).toBe(false)
  })

  test('a removed message does not return with a response that was in flight', () => {
    const { store } = displayed(syncPage({ conversations: [conversation()], messages: [message({ seq: 1 })] }))
    store.apply(synced(syncPage({ removed_message_ids: ['m1'] })))
    store.putAnswer(message({ seq: 1 }))
    expect(messagesOf(store)).toEqual([])
  })

  test('a cleared conversation loses its messages and begins after them', () => {
    const messages = [message({ seq: 1 }), message({ seq: 2 })]
    const { store } = displayed(syncPage({ conversations: [conversation()], messages }))
    store.apply(synced(syncPage({ conversations: [conversation({ cleared_seq: 1, rev: 2 })] })))
    expect(messagesOf(store).map(({ id }) => id)).toEqual(['m2'])
    expect(store.getTimeline(CONVERSATION).hasOlder).toBe(false)
  })
})

describe('ticks', () => {
  const own = message({ seq: 1, sender_id: ME, client_message_id: 'key1' })
  const stateAfter = (...inputs: Input[]) => {
    const { store } = displayed(syncPage({ conversations: [conversation()], messages: [own] }))
    inputs.forEach((input) => store.apply(input))
    return messagesOf(store)[0]
  }

  test('come from receipts, in any order', () => {
    const read = row('conversation_receipts', { ...receipt(PEER, 1) })
    const delivered = row('conversation_receipts', { ...receipt(PEER, 0, 1) })
    expect(stateAfter()?.state).toBe('sent')
    expect(stateAfter(delivered)?.state).toBe('delivered')
    expect(stateAfter(read, delivered)).toMatchObject({ state: 'read', read_by: [PEER] })
  })

  test('never come from `read_by` of a row', () => {
    const { store } = displayed(
      syncPage({ conversations: [conversation()], messages: [{ ...own, read_by: [PEER], delivery_status: 'read' }] }),
    )
    expect(messagesOf(store)[0]?.state).toBe('sent')
  })

  test('disappear when `/sync` returns the conversation without receipts', () => {
    expect(
      stateAfter(
        row('conversation_receipts', { ...receipt(PEER, 1) }),
        synced(syncPage({ conversations: [conversation()] })),
      )?.state,
    ).toBe('sent')
  })
})

describe('the list', () => {
  test('moves a conversation up with a live message, and takes the count from the event', () => {
    const received: string[] = []
    const { store } = storeOf({ received: ({ id }) => received.push(id) })
    const [first, second] = [
      conversation({ id: 'a', last_message_at: '2026-01-02T00:00:00+00:00' }),
      conversation({ last_message_at: '2026-01-01T00:00:00+00:00' }),
    ]
    store.apply(synced(syncPage({ conversations: [first, second] })))
    expect(store.getState().conversations.map(({ id }) => id)).toEqual(['a', CONVERSATION])
    store.apply(row('user_messages', rowOf(message({ seq: 1, created_at: '2026-01-03T00:00:00+00:00' })), 'INSERT'))
    store.apply({
      type: 'event',
      name: 'conversation.updated',
      payload: { conversation_id: CONVERSATION, unread_count: 1 },
    })
    expect(store.getState().conversations[0]).toMatchObject({
      id: CONVERSATION,
      unread_count: 1,
      last_message: { id: 'm1' },
    })
    expect(store.getState().unread).toMatchObject({ total: 1, byConversation: { [CONVERSATION]: 1 } })
    expect(received).toEqual(['m1'])
  })

  test('keeps the newer last message when an older row of the conversation arrives', () => {
    const { store } = storeOf()
    store.apply(synced(syncPage({ conversations: [conversation()] })))
    store.apply(row('user_messages', rowOf(message({ seq: 1 })), 'INSERT'))
    store.putConversation(conversation({ is_pinned: true }))
    expect(store.getState().conversations[0]).toMatchObject({
      is_pinned: true,
      last_seq: 1,
      last_message: { id: 'm1' },
    })
  })

  test('drops conversations that a first load no longer contains, but only at its end', () => {
    const { store } = storeOf()
    store.apply(synced(syncPage({ conversations: [conversation({ id: 'gone' })] })))
    const load = (page: wire.SyncPage): Input => ({ type: 'synced', page, isFirstLoad: true, isLive: false })
    store.apply(load(syncPage({ conversations: [conversation({ id: 'a' })], has_more: true })))
    expect(store.getState().conversations).toHaveLength(2)
    store.apply(load(syncPage({ conversations: [conversation({ id: 'b' })] })))
    expect(
      store
        .getState()
        .conversations.map(({ id }) => id)
        .sort(),
    ).toEqual(['a', 'b'])
  })

  test('excludes muted and archived conversations from the total', () => {
    const { store } = storeOf()
    const rows = [
      conversation({ id: 'a', unread_count: 1 }),
      conversation({ id: 'b', unread_count: 2, is_muted: true }),
      conversation({ id: 'c', unread_count: 4, is_archived: true }),
    ]
    store.apply(synced(syncPage({ conversations: rows })))
    expect(store.getState().unread).toEqual({ total: 1, mentions: 0, byConversation: { a: 1, b: 2, c: 4 } })
  })
})

test('a row of the list does not restore an old status', () => {
  const { store } = displayed(syncPage({ conversations: [conversation()], messages: [] }))
  store.putPresence(PEER, { status: 'online' })
  store.putConversation(conversation({ unread_count: 1 }))
  expect(store.getState().presence[PEER]?.status).toBe('online')
})

test("a row of the list does not change the user's own status, which the user may have chosen", () => {
  const { store } = displayed(syncPage({ conversations: [conversation()], messages: [] }))
  expect(Object.keys(store.getState().presence)).toEqual([PEER])
})

describe('snapshots', () => {
  test('keep the objects that did not change', () => {
    const { store } = displayed(
      syncPage({ conversations: [conversation()], messages: [message({ seq: 1 }), message({ seq: 2 })] }),
    )
    const before = store.getState()
    store.putPresence(PEER, { status: 'online' })
    const after = store.getState()
    expect(after).not.toBe(before)
    expect(after.timelines).toBe(before.timelines)
    expect(after.conversations).toBe(before.conversations)
    store.putAnswer(message({ seq: 2, rev: 3, content: 'edited' }))
    const [first, second] = messagesOf(store)
    expect(first).toBe(before.timelines[CONVERSATION]?.messages[0])
    expect(second?.content).toBe('edited')
  })

  test('show the new picture of a sender in messages whose rows do not contain it', () => {
    const { store } = displayed(syncPage({ conversations: [conversation()], messages: [] }))
    store.apply(row('user_messages', rowOf(message({ seq: 1 })), 'INSERT'))
    expect(messagesOf(store)[0]?.sender?.avatar_url).toBeNull()
    store.putPerson({ id: PEER, avatar_url: 'https://example.com/new.png' })
    expect(messagesOf(store)[0]?.sender?.avatar_url).toBe('https://example.com/new.png')
  })

  test('are the same object while nothing changes', () => {
    const { store } = displayed(syncPage({ conversations: [conversation()], messages: [message({ seq: 1 })] }))
    const before = store.getState()
    store.apply(synced(syncPage({ conversations: [conversation()], messages: [message({ seq: 1 })] })))
    expect(store.getState()).toBe(before)
    expect(store.getTimeline('another')).toBe(store.getTimeline('another'))
  })
})
