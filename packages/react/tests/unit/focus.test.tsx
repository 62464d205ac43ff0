// The focus is never lost: it stays where the user can continue.
import { act, screen, waitFor } from '@testing-library/react'
import userEvent from '@testing-library/user-event'
import { describe, expect, it, vi } from 'vitest'
import { ChatProvider, ConversationsList, Messenger, TypingIndicator, UserChatInterface } from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE, timeline } from '../../src/testing/fake-client'
import { renderWith } from './render'

const { ana, ben, chloe } = PEOPLE
const WITH_BEN = conversation(ben).id

const items = (): HTMLElement[] => [...document.querySelectorAll<HTMLElement>('[data-slot="conversation-link"]')]

describe('the focus', () => {
  const listOf = (...people: (typeof ben)[]): void => {
    const client = new FakeClient(initialState({ conversations: people.map((one) => conversation(one)) }))
    renderWith(client, <ConversationsList onConversationSelect={() => undefined} />)
    act(() => items()[0]?.focus())
  }

  it('goes to the next conversation when one leaves the list', async () => {
    listOf(ben, chloe)
    await userEvent.keyboard('{Delete}')
    expect(items()).toHaveLength(1)
    expect(document.activeElement).toBe(items()[0])
  })

  it('goes to the search when the last one leaves', async () => {
    listOf(ben)
    await userEvent.keyboard('{Delete}')
    expect(document.activeElement).toBe(screen.getByRole('searchbox'))
  })

  it('also goes to the next conversation when the menu archives one', async () => {
    listOf(ben, chloe)
    act(() => screen.getByRole('button', { name: 'Actions for Ben Olsen' }).focus())
    await userEvent.keyboard('{Enter}')
    act(() => screen.getByRole('menuitem', { name: 'Archive' }).focus())
    await userEvent.keyboard('{Enter}')
    await waitFor(() => expect(document.activeElement).toBe(items()[0]))
  })

  it('returns from a toast to where it was', async () => {
    listOf(ben, chloe)
    await userEvent.keyboard('{Delete}')
    const before = document.activeElement
    act(() => screen.getByRole('button', { name: 'Undo' }).focus())
    await userEvent.keyboard('{Enter}')
    expect(screen.queryByRole('button', { name: 'Undo' })).toBeNull()
    expect(document.activeElement).toBe(before)
  })

  it('has one stop for the list and one for the menu beside it', () => {
    listOf(ben, chloe)
    const stops = [...document.querySelectorAll<HTMLElement>('[data-slot="conversations"] :is(a, button)')]
    expect(stops.filter(({ tabIndex }) => tabIndex === 0)).toHaveLength(2)
  })
})

describe('a row', () => {
  it('lets the arrow keys visit its actions, and then all other controls in it', async () => {
    const quoted = { ...message(WITH_BEN, ana, 'question', { id: 'q' }) }
    const client = new FakeClient(
      initialState({
        conversations: [conversation(ben)],
        timelines: {
          [WITH_BEN]: timeline(WITH_BEN, [
            message(WITH_BEN, ben, 'see https://example.com', {
              is_edited: true,
              reply_to: quoted,
              reactions: [{ emoji: '👍', reaction: '👍', count: 1, me: false, user_ids: [ben.id] }],
            }),
          ]),
        },
      }),
    )
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    const row = screen.getByRole('listitem')
    // jsdom does not know whether the focus is visible. The pointer shows the same toolbar.
    await userEvent.hover(row)
    act(() => row.focus())
    const visited: string[] = []
    for (let i = 0; i < 8; i++) {
      await userEvent.keyboard('{ArrowRight}')
      const { activeElement: control } = document
      visited.push(control?.getAttribute('aria-label') ?? control?.textContent ?? '')
    }
    expect(visited.slice(0, 3)).toEqual(['Add reaction', 'Reply', 'More actions'])
    expect(visited[3]).toContain('question')
    expect(visited.slice(4, 6)).toEqual(['https://example.com', 'Edited. Show earlier versions'])
    // At the last control, the focus stays.
    expect(visited.slice(6)).toEqual(['👍 by Ben Olsen, 1', '👍 by Ben Olsen, 1'])
    await userEvent.keyboard('{Escape}')
    expect(document.activeElement).toBe(row)
  })
})

describe('a reaction', () => {
  it('that is removed passes the focus to its row', async () => {
    const mine = { emoji: '👍', reaction: '👍', count: 1, me: true, user_ids: [ana.id] }
    const one = message(WITH_BEN, ben, 'hi', { id: 'm1', key: 'm1', reactions: [mine] })
    const client = new FakeClient(
      initialState({
        conversations: [conversation(ben)],
        timelines: { [WITH_BEN]: timeline(WITH_BEN, [one]) },
      }),
    )
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    // jsdom does not support `:focus-visible`, which applies to a focus set by keyboard.
    const matches = vi.spyOn(Element.prototype, 'matches')
    matches.mockImplementation(function (this: Element, selector: string) {
      return selector === ':focus-visible' || this.closest(selector) === this
    })
    act(() => document.querySelector<HTMLElement>('.rpt-reaction')?.focus())
    matches.mockRestore()
    act(() => client.conversation(WITH_BEN).change({ messages: [{ ...one, reactions: [] }] }))
    expect(document.activeElement).toBe(screen.getByRole('listitem'))
  })
})

describe('Ctrl+Shift+F', () => {
  it('leads to the search, even if the conversation hides the list', async () => {
    const client = new FakeClient(
      initialState({
        conversations: [conversation(ben)],
        timelines: { [WITH_BEN]: timeline(WITH_BEN, [message(WITH_BEN, ben, 'hi')]) },
      }),
    )
    renderWith(client, <Messenger />)
    await userEvent.click(items()[0] as HTMLElement)
    // In jsdom, elements have no boxes, like the hidden list on a phone with an open conversation.
    await userEvent.keyboard('{Control>}{Shift>}f{/Shift}{/Control}')
    await waitFor(() => expect(document.activeElement).toBe(document.querySelector('[data-slot="search"]')))
    expect(document.querySelector('[data-slot="chat-interface"]')).toBeNull()
  })
})

describe('Escape', () => {
  it('closes the search of a conversation, even while the focus is in the composer', async () => {
    const client = new FakeClient(
      initialState({
        conversations: [conversation(ben)],
        timelines: { [WITH_BEN]: timeline(WITH_BEN, [message(WITH_BEN, ben, 'hi')]) },
      }),
    )
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    await userEvent.click(screen.getByRole('button', { name: 'Search in this conversation' }))
    const field = screen.getByLabelText('Message to Ben')
    act(() => field.focus())
    await userEvent.keyboard('{Escape}')
    expect(screen.queryByRole('searchbox')).toBeNull()
    expect(document.activeElement).toBe(field)
  })
})

describe('typing', () => {
  it('is announced once per person and minute', () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] })
    try {
      const said: (string | null)[] = []
      const client = new FakeClient()
      const indicator = (people: readonly string[]) => <TypingIndicator typingUsers={people} userNames={people} />
      const { rerender } = renderWith(client, indicator([]))
      const announcer = document.querySelector('[data-slot="announcer"]')
      const show = (people: readonly string[]): void => {
        rerender(<ChatProvider client={client}>{indicator(people)}</ChatProvider>)
        said.push(announcer?.textContent ?? null)
        act(() => vi.advanceTimersByTime(2000))
      }
      show(['Ben'])
      show(['Ben', 'Zoe'])
      show(['Ben'])
      show([])
      show(['Zoe'])
      expect(said).toEqual(['Ben is typing', 'Ben and Zoe are typing', '', '', ''])
      act(() => vi.advanceTimersByTime(60_000))
      show(['Ben'])
      expect(said.at(-1)).toBe('Ben is typing')
    } finally {
      vi.useRealTimers()
    }
  })
})
