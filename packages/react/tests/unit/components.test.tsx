import { act, fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import userEvent from '@testing-library/user-event'
import { useState, type ReactNode } from 'react'
import { describe, expect, it, vi } from 'vitest'
import {
  ConversationsList,
  EmptyState,
  MessageBubble,
  MessageInput,
  NewChatDialog,
  UserChatInterface,
  UserSearchInput,
} from '../../src'
import { de } from '../../src/strings/de'
import { conversation, FakeClient, initialState, message, OK, PEOPLE, timeline } from '../../src/testing/fake-client'
import type { TimelineMessage } from '@rapport-chat/client'
import { renderWith } from './render'

const { ana, ben, chloe } = PEOPLE
const WITH_BEN = conversation(ben).id

function chatClient(messages: readonly TimelineMessage[], rest = {}): FakeClient {
  return new FakeClient(
    initialState({ conversations: [conversation(ben)], timelines: { [WITH_BEN]: timeline(WITH_BEN, messages, rest) } }),
  )
}

describe('MessageInput', () => {
  it('sends on Enter and starts a new line on Shift+Enter', async () => {
    const send = vi.fn()
    render(<MessageInput onSendMessage={send} label="Message" />)
    const field = screen.getByLabelText('Message')
    await userEvent.type(field, 'one{Shift>}{Enter}{/Shift}two{Enter}')
    expect(send.mock.calls).toEqual([['one\ntwo']])
    expect(field).toHaveProperty('value', '')
    expect(document.activeElement).toBe(field)
  })

  it('does not send while a word is being composed', () => {
    const send = vi.fn()
    render(<MessageInput onSendMessage={send} value="にほん" label="Message" />)
    const field = screen.getByLabelText('Message')
    fireEvent.keyDown(field, { key: 'Enter', isComposing: true })
    fireEvent.keyDown(field, { key: 'Enter', keyCode: 229 })
    expect(send).not.toHaveBeenCalled()
    fireEvent.keyDown(field, { key: 'Enter' })
    expect(send).toHaveBeenCalledOnce()
  })

  it('does not send only white space', async () => {
    const send = vi.fn()
    render(<MessageInput onSendMessage={send} label="Message" />)
    await userEvent.type(screen.getByLabelText('Message'), '   {Enter}')
    expect(send).not.toHaveBeenCalled()
  })

  it('counts code points and refuses a text that is too long', async () => {
    const send = vi.fn()
    render(<MessageInput onSendMessage={send} maxLength={10} value={'😀'.repeat(11)} label="Message" />)
    expect(screen.getByRole('status').textContent).toBe('1 character too many')
    fireEvent.keyDown(screen.getByLabelText('Message'), { key: 'Enter' })
    expect(send).not.toHaveBeenCalled()
  })
})

describe('MessageBubble', () => {
  it('shows markup as text', () => {
    const { container } = render(<MessageBubble message={message('c', ben, '<img src=x onerror=alert(1)>')} />)
    expect(container.querySelector('img')).toBeNull()
    expect(container.textContent).toContain('<img src=x')
  })

  it('opens links without access to the page', () => {
    render(<MessageBubble message={message('c', ben, 'https://example.com')} />)
    expect(screen.getByRole('link').getAttribute('rel')).toBe('noopener noreferrer nofollow ugc')
  })

  it('loads nothing from addresses that would run code', () => {
    render(
      <MessageBubble
        message={message('c', ben, '', { message_type: 'file', file_name: 'a', file_url: 'javascript:alert(1)' })}
      />,
    )
    expect(screen.queryByRole('link')).toBeNull()
  })

  it('folds long texts', async () => {
    render(<MessageBubble message={message('c', ben, 'line\n'.repeat(30))} />)
    const button = screen.getByRole('button', { name: 'Show more' })
    await userEvent.click(button)
    expect(button.getAttribute('aria-expanded')).toBe('true')
  })

  it('names the state of own messages in words', () => {
    render(<MessageBubble message={message('c', ana, 'x', { state: 'delivered' })} />)
    expect(screen.getByRole('img', { name: 'Delivered' })).toBeTruthy()
  })
})

describe('UserChatInterface', () => {
  it('sends, and clears the draft', async () => {
    const client = chatClient([message(WITH_BEN, ben, 'hi')])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    await userEvent.type(screen.getByLabelText('Message to Ben'), 'hello{Enter}')
    const one = client.conversation(WITH_BEN)
    expect(one.called('send')).toEqual([['hello', {}]])
    expect(one.getDraft()).toBe('')
    expect(screen.getByText('hello')).toBeTruthy()
  })

  it('describes each row in words', () => {
    renderWith(
      chatClient([message(WITH_BEN, ben, 'hi', { is_edited: true })]),
      <UserChatInterface conversationId={WITH_BEN} />,
    )
    expect(screen.getByRole('listitem').getAttribute('aria-label')).toMatch(/^Ben Olsen, hi, edited, /)
  })

  it('edits the last own message on ArrowUp, and restores the draft on Escape', async () => {
    const client = chatClient([message(WITH_BEN, ana, 'mine')])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    const field = screen.getByLabelText('Message to Ben')
    await userEvent.type(field, '{ArrowUp}')
    expect(field).toHaveProperty('value', 'mine')
    await userEvent.type(field, '!{Enter}')
    const [id] = client.conversation(WITH_BEN).called('edit')[0] ?? []
    expect(client.conversation(WITH_BEN).called('edit')).toEqual([[id, 'mine!']])
    await userEvent.type(field, '{ArrowUp}{Escape}')
    expect(field).toHaveProperty('value', '')
  })

  it('asks which version to keep if another window has changed the message', async () => {
    const client = chatClient([message(WITH_BEN, ana, 'theirs')])
    client.editResult = {
      data: null,
      error: {
        message: 'The message was changed meanwhile',
        code: 'stale_revision',
        status: 412,
        hint: null,
        retryAfter: null,
        requestId: null,
      },
    }
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    await userEvent.type(screen.getByLabelText('Message to Ben'), '{ArrowUp}{Control>}a{/Control}my text{Enter}')
    const dialog = await screen.findByRole('dialog')
    expect(dialog.textContent).toContain('my text')
    client.editResult = OK
    await userEvent.click(within(dialog).getByRole('button', { name: 'Use your version' }))
    expect(client.conversation(WITH_BEN).called('edit')).toHaveLength(2)
  })

  it('also asks if the other edit has arrived before saving', async () => {
    const client = chatClient([message(WITH_BEN, ana, 'mine', { id: 'm1' })])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    const field = screen.getByLabelText('Message to Ben')
    await userEvent.type(field, '{ArrowUp}')
    act(() =>
      client
        .conversation(WITH_BEN)
        .change({ messages: [message(WITH_BEN, ana, 'from elsewhere', { id: 'm1', rev: 2 })] }),
    )
    await userEvent.type(field, '!{Enter}')
    expect((await screen.findByRole('dialog')).textContent).toContain('from elsewhere')
    expect(client.conversation(WITH_BEN).called('edit')).toEqual([])
  })

  it('lets single letters act on the focused row, unless they are disabled', async () => {
    const client = chatClient([message(WITH_BEN, ben, 'hi')])
    const { unmount } = renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    act(() => screen.getByRole('listitem').focus())
    await userEvent.keyboard('u')
    expect(client.conversation(WITH_BEN).called('markUnread')).toHaveLength(1)
    unmount()
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { letterShortcuts: false })
    act(() => screen.getByRole('listitem').focus())
    await userEvent.keyboard('u')
    expect(client.conversation(WITH_BEN).called('markUnread')).toHaveLength(1)
  })

  it('moves the roving tab stop with the arrow keys', async () => {
    renderWith(
      chatClient([message(WITH_BEN, ben, 'one', { seq: 1 }), message(WITH_BEN, ben, 'two', { seq: 2 })]),
      <UserChatInterface conversationId={WITH_BEN} />,
    )
    const [first, second] = screen.getAllByRole('listitem')
    expect([first?.tabIndex, second?.tabIndex]).toEqual([-1, 0])
    act(() => second?.focus())
    await userEvent.keyboard('{ArrowUp}')
    expect(document.activeElement).toBe(first)
    expect([first?.tabIndex, second?.tabIndex]).toEqual([0, -1])
  })

  it('asks before deleting', async () => {
    const client = chatClient([message(WITH_BEN, ana, 'mine')])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    act(() => screen.getByRole('listitem').focus())
    await userEvent.keyboard('{Delete}')
    const dialog = screen.getByRole('dialog', { name: 'Delete this message?' })
    expect(client.conversation(WITH_BEN).called('remove')).toEqual([])
    await userEvent.click(within(dialog).getByRole('button', { name: 'Delete' }))
    expect(client.conversation(WITH_BEN).called('remove')).toHaveLength(1)
  })

  it('offers to retry a failed message', async () => {
    const client = chatClient([
      message(WITH_BEN, ana, 'lost', { state: 'failed', canRetry: true, seq: Number.POSITIVE_INFINITY }),
    ])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    await userEvent.click(screen.getByRole('button', { name: 'Retry' }))
    expect(client.conversation(WITH_BEN).called('retry')).toHaveLength(1)
  })

  it('has no composer if the user cannot write', () => {
    const client = new FakeClient(
      initialState({
        conversations: [conversation(ben, { can_send: false })],
        timelines: { [WITH_BEN]: timeline(WITH_BEN, []) },
      }),
    )
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    expect(screen.getByText('You cannot message this person.')).toBeTruthy()
    expect(screen.queryByRole('textbox')).toBeNull()
  })

  it('announces a new message once', async () => {
    const client = chatClient([])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    act(() => client.emit({ type: 'message_received', message: message(WITH_BEN, ben, 'news'), conversation: null }))
    const announcer = document.querySelector('[data-slot="announcer"]')
    expect(announcer?.textContent).toBe('Ben: news')
    await waitFor(() => expect(announcer?.textContent).toBe(''), { timeout: 2000 })
  })

  it('can be shown in other languages', () => {
    renderWith(chatClient([]), <UserChatInterface conversationId={WITH_BEN} />, { strings: de })
    expect(screen.getByLabelText('Nachricht an Ben')).toBeTruthy()
  })

  it('leaves no listener behind after unmounting', () => {
    const client = chatClient([message(WITH_BEN, ben, 'hi')])
    const { unmount } = renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    unmount()
    expect(client.conversation(WITH_BEN).opened).toBe(0)
    expect(client.listenerCount).toBe(0)
    expect(client.started).toBe(0)
  })
})

describe('ConversationsList', () => {
  const client = (): FakeClient =>
    new FakeClient(initialState({ conversations: [conversation(ben, { unread_count: 2 }), conversation(chloe)] }))
  const items = (): HTMLElement[] => [...document.querySelectorAll<HTMLElement>('[data-slot="conversation-link"]')]

  it('describes each conversation in words', () => {
    renderWith(client(), <ConversationsList onConversationSelect={() => undefined} />)
    expect(items()[0]?.textContent).toMatch(/^BOBen Olsen, 2 unread, .*No messages yet/)
  })

  it('has one tab stop, which arrow keys and letters move', async () => {
    renderWith(client(), <ConversationsList onConversationSelect={() => undefined} />)
    expect(items().map(({ tabIndex }) => tabIndex)).toEqual([0, -1])
    act(() => items()[0]?.focus())
    await userEvent.keyboard('{ArrowDown}')
    expect(document.activeElement).toBe(items()[1])
    await userEvent.keyboard('b')
    expect(document.activeElement).toBe(items()[0])
  })

  it('archives on Delete, and can undo that', async () => {
    const made = client()
    renderWith(made, <ConversationsList onConversationSelect={() => undefined} />)
    act(() => items()[0]?.focus())
    await userEvent.keyboard('{Delete}')
    expect(items()).toHaveLength(1)
    await userEvent.click(screen.getByRole('button', { name: 'Undo' }))
    expect(made.called('archive').map(([, isArchived]) => isArchived)).toEqual([true, false])
    expect(items()).toHaveLength(2)
  })

  it('renders links if the application provides addresses', () => {
    renderWith(client(), <ConversationsList onConversationSelect={() => undefined} />, {
      linkTo: (target) => (target.to === 'list' ? '/messages' : `/messages/${target.conversationId}`),
    })
    expect(items()[0]?.getAttribute('href')).toBe(`/messages/${WITH_BEN}`)
  })
})

describe('UserSearchInput', () => {
  function Search({ onSelect }: { onSelect: (id: string) => void }): ReactNode {
    const [value, setValue] = useState('')
    return <UserSearchInput value={value} onChange={setValue} onSelect={({ id }) => onSelect(id)} />
  }

  it('is a combobox that can be used by keyboard', async () => {
    const client = new FakeClient()
    client.found = [ben, chloe]
    const select = vi.fn()
    renderWith(client, <Search onSelect={select} />)
    const field = screen.getByRole('combobox')
    await userEvent.type(field, 'en')
    const option = await screen.findByRole('option')
    expect(option.textContent).toContain('Ben Olsen')
    expect(field.getAttribute('aria-activedescendant')).toBe(option.id)
    await userEvent.keyboard('{Enter}')
    expect(select).toHaveBeenCalledWith(ben.id)
  })

  it('tells the user if no person is found', async () => {
    renderWith(new FakeClient(), <Search onSelect={() => undefined} />)
    await userEvent.type(screen.getByRole('combobox'), 'zoe')
    expect(await screen.findByText('Nobody in your teams matches “zoe”.')).toBeTruthy()
  })
})

describe('NewChatDialog', () => {
  it('opens the conversation with the chosen person', async () => {
    const client = new FakeClient(initialState({ conversations: [conversation(ben)] }))
    client.found = [ben]
    const create = vi.fn()
    renderWith(client, <NewChatDialog isOpen onClose={() => undefined} onCreateConversation={create} />)
    // This group is shown once the contacts have arrived.
    await screen.findByRole('group', { name: 'Your teams' })
    await userEvent.click(screen.getByRole('option', { name: /Ben Olsen/ }))
    await waitFor(() => expect(create).toHaveBeenCalledWith(WITH_BEN, expect.objectContaining({ id: ben.id })))
  })
})

describe('EmptyState', () => {
  it('has one heading and one button', async () => {
    const newConversation = vi.fn()
    render(<EmptyState variant="no-conversations" onNewConversation={newConversation} />)
    expect(screen.getAllByRole('heading')).toHaveLength(1)
    await userEvent.click(screen.getByRole('button', { name: 'New message' }))
    expect(newConversation).toHaveBeenCalledOnce()
  })
})
