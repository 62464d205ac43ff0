// The shortcuts that lead from one conversation to another.
import { act } from '@testing-library/react'
import userEvent from '@testing-library/user-event'
import { describe, expect, it } from 'vitest'
import { Messenger } from '../../src'
import { conversation, FakeClient, initialState, PEOPLE } from '../../src/testing/fake-client'
import { renderWith } from './render'

/** The members of the conversations, in the order of the list. */
const ORDER = ['ben', 'chloe', 'mona'] as const
type Name = (typeof ORDER)[number]
const idOf = (name: Name): string => conversation(PEOPLE[name]).id

const KEYS = {
  previous: '{Alt>}{ArrowUp}{/Alt}',
  next: '{Alt>}{ArrowDown}{/Alt}',
  'previous unread': '{Alt>}{Shift>}{ArrowUp}{/Shift}{/Alt}',
  'next unread': '{Alt>}{Shift>}{ArrowDown}{/Shift}{/Alt}',
} as const

const links = (): HTMLElement[] => [...document.querySelectorAll<HTMLElement>('[data-slot="conversation-link"]')]
const nameOf = (link: HTMLElement | null): Name | undefined =>
  ORDER.find((name) => idOf(name) === link?.dataset['conversation'])
const opened = (): Name | undefined => nameOf(document.querySelector('[aria-current="page"]'))

function shown(unread: readonly Name[]): FakeClient {
  const conversations = ORDER.map((name) => ({
    ...conversation(PEOPLE[name]),
    unread_count: unread.includes(name) ? 1 : 0,
  }))
  const client = new FakeClient(initialState({ conversations }))
  renderWith(client, <Messenger />)
  expect(links().map(nameOf)).toEqual(ORDER)
  return client
}

describe('Alt and an arrow', () => {
  const open = (name: Name): void => act(() => links().find((link) => nameOf(link) === name)?.click())

  it.each([
    ['chloe', 'previous', 'ben'],
    ['chloe', 'next', 'mona'],
    ['ben', 'previous', 'ben'],
    ['mona', 'next', 'mona'],
  ] as const)('from %s, %s: %s', async (from, keys, to) => {
    shown([])
    open(from)
    await userEvent.keyboard(KEYS[keys])
    expect(opened()).toBe(to)
  })

  it.each([
    ['chloe', 'previous unread', ['ben', 'mona'], 'ben'],
    ['chloe', 'next unread', ['ben', 'mona'], 'mona'],
    // At the end of the list, the search continues at the other end.
    ['ben', 'previous unread', ['mona'], 'mona'],
    ['ben', 'previous unread', ['chloe', 'mona'], 'mona'],
    ['mona', 'next unread', ['chloe'], 'chloe'],
    ['chloe', 'next unread', ['ben'], 'ben'],
    // No other conversation is unread.
    ['chloe', 'next unread', ['chloe'], 'chloe'],
    ['chloe', 'previous unread', [], 'chloe'],
  ] as const)('from %s, %s of %j: %s', async (from, keys, unread, to) => {
    shown(unread)
    open(from)
    await userEvent.keyboard(KEYS[keys])
    expect(opened()).toBe(to)
  })

  it('leads to the displayed neighbour while the list keeps its order', async () => {
    const client = shown([])
    open('ben')
    act(() => links()[0]?.focus())
    await act(() => new Promise((done) => setTimeout(done)))
    const { conversations } = client.getState()
    act(() => client.set({ conversations: [...conversations].reverse() }))
    expect(links().map(nameOf)).toEqual(ORDER)
    await userEvent.keyboard(KEYS.next)
    expect(opened()).toBe('chloe')
  })
})
