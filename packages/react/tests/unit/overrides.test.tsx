import { act, fireEvent, render, screen } from '@testing-library/react'
import type { ReactNode } from 'react'
import userEvent from '@testing-library/user-event'
import { describe, expect, it, vi } from 'vitest'
import {
  ConversationsList,
  MessageBubble,
  MessageInput,
  Messenger,
  UserChatInterface,
  type MessageBubbleProps,
  type QuoteProps,
} from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE, timeline } from '../../src/testing/fake-client'
import { renderWith } from './render'

const { ana, ben } = PEOPLE
const WITH_BEN = conversation(ben).id
const quoted = {
  id: 'q',
  sender_id: ben.id,
  content: 'the question',
  message_type: 'text' as const,
  file_name: null,
  is_deleted: false,
  created_at: new Date().toISOString(),
}

function chatClient(rest = {}): FakeClient {
  return new FakeClient(
    initialState({
      conversations: [conversation(ben, rest)],
      timelines: { [WITH_BEN]: timeline(WITH_BEN, [message(WITH_BEN, ben, 'hi', { id: 'm1' })]) },
    }),
  )
}

describe('sending', () => {
  it('renders the message, and nothing of the list of conversations or the header', () => {
    const client = chatClient()
    const rendered = new Set<string>()
    const Avatar = (): ReactNode => {
      rendered.add('an avatar')
      return null
    }
    const Bubble = ({ message: { content } }: MessageBubbleProps): ReactNode => {
      rendered.add(content)
      return content
    }
    renderWith(client, <Messenger conversationId={WITH_BEN} />, { components: { Avatar, MessageBubble: Bubble } })
    expect([...rendered].sort()).toEqual(['an avatar', 'hi'])
    rendered.clear()
    act(() => void client.conversation(WITH_BEN).send('hello'))
    expect([...rendered]).toEqual(['hello'])
  })
})

describe('slots', () => {
  it('replace a piece of a message', () => {
    const Quote = ({ quoted: { content } }: QuoteProps) => <q>{content}</q>
    renderWith(new FakeClient(), <MessageBubble message={message('c', ana, 'yes', { reply_to: quoted })} />, {
      slots: { Quote },
    })
    expect(document.querySelector('q')?.textContent).toBe('the question')
    expect(document.querySelector('[data-slot="quote"]')).toBeNull()
    expect(document.querySelector('[data-slot="bubble"]')?.textContent).toContain('yes')
  })

  it('receive attributes of the application in addition to their own', () => {
    renderWith(chatClient(), <UserChatInterface conversationId={WITH_BEN} />, {
      slotProps: { bubble: { className: 'mine', 'data-test': 'bubble' }, composer: { id: 'write' } },
    })
    const bubble = document.querySelector('[data-slot="bubble"]')
    expect(bubble?.className).toBe('rpt-bubble mine')
    expect(bubble?.getAttribute('data-test')).toBe('bubble')
    expect(document.querySelector('form#write')?.getAttribute('data-slot')).toBe('composer')
  })
})

describe('handlers of the application', () => {
  it('archive and delete instead of the client', async () => {
    const client = chatClient()
    const [archive, remove] = [vi.fn(), vi.fn()]
    renderWith(
      client,
      <ConversationsList
        onConversationSelect={() => undefined}
        onArchiveConversation={archive}
        onDeleteConversation={remove}
      />,
    )
    const menu = async (name: string): Promise<void> => {
      await userEvent.click(screen.getByRole('button', { name: 'Actions for Ben Olsen' }))
      await userEvent.click(screen.getByRole('menuitem', { name }))
    }
    await menu('Archive')
    expect(archive).toHaveBeenCalledWith(WITH_BEN)
    await menu('Delete conversation')
    expect(remove).not.toHaveBeenCalled()
    await userEvent.click(screen.getByRole('button', { name: 'Delete' }))
    expect(remove).toHaveBeenCalledWith(WITH_BEN)
    expect([...client.called('archive'), ...client.called('clear')]).toEqual([])
  })
})

describe('the menu of a conversation', () => {
  const open = async (name: string): Promise<void> => {
    await userEvent.click(screen.getByRole('button', { name: 'More actions' }))
    await userEvent.click(await screen.findByRole('menuitem', { name }))
  }

  it('reports the latest message of the other person', async () => {
    const client = chatClient()
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    await open('Report')
    await userEvent.click(screen.getByRole('button', { name: 'Send report' }))
    expect(client.conversation(WITH_BEN).called('report')).toEqual([['m1', 'spam']])
  })

  it('ends a block by the user, in the menu and in place of the composer', async () => {
    const client = chatClient({ can_send: false })
    client.blocked = [ben.id]
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    expect(await screen.findByText('You have blocked Ben Olsen.', { exact: false })).toBeTruthy()
    await userEvent.click(screen.getByRole('button', { name: 'Unblock' }))
    await open('Unblock')
    expect(client.called('unblock')).toEqual([[ben.id], [ben.id]])
  })

  it('does not reveal a block by the other person', async () => {
    renderWith(chatClient({ can_send: false }), <UserChatInterface conversationId={WITH_BEN} />)
    await screen.findByText('You cannot message this person.')
    expect(screen.queryByRole('button', { name: 'Unblock' })).toBeNull()
  })
})

describe('a double click', () => {
  it('reacts only if it is switched on', () => {
    const client = chatClient()
    const { unmount } = renderWith(client, <UserChatInterface conversationId={WITH_BEN} />)
    fireEvent.doubleClick(screen.getByRole('listitem'))
    unmount()
    expect(client.conversation(WITH_BEN).called('react')).toEqual([])
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { doubleClickReaction: '❤️' })
    fireEvent.doubleClick(screen.getByRole('listitem'))
    expect(client.conversation(WITH_BEN).called('react')).toEqual([['m1', '❤️']])
  })
})

describe('MessageInput with a draft key', () => {
  it('keeps the text as the draft until it is sent', async () => {
    const client = chatClient()
    const send = vi.fn()
    renderWith(client, <MessageInput draftKey={WITH_BEN} onSendMessage={send} label="Message" />)
    await userEvent.type(screen.getByLabelText('Message'), 'later')
    expect(client.conversation(WITH_BEN).getDraft()).toBe('later')
    await userEvent.keyboard('{Enter}')
    expect(send).toHaveBeenCalledWith('later')
    expect(client.conversation(WITH_BEN).getDraft()).toBe('')
  })

  it('ignores the key without a provider', async () => {
    const send = vi.fn()
    render(<MessageInput draftKey={WITH_BEN} onSendMessage={send} label="Message" />)
    await userEvent.type(screen.getByLabelText('Message'), 'now{Enter}')
    expect(send).toHaveBeenCalledWith('now')
  })
})
