import type { MessageHit, Person } from '@rapport-chat/client'
import { screen } from '@testing-library/react'
import userEvent from '@testing-library/user-event'
import { describe, expect, it, vi } from 'vitest'
import { ConversationsList, MessageSearch, NewChatDialog } from '../../src'
import { conversation, FakeClient, initialState, message, PEOPLE } from '../../src/testing/fake-client'
import { renderWith } from './render'

const { ana, ben, chloe } = PEOPLE

function hit(sender: Person, content: string, rest = {}): MessageHit {
  const { id, kind, other_user, participant_1_id, participant_2_id } = conversation(ben)
  return {
    message: message(id, sender, content),
    conversation: { id, kind, title: null, is_archived: false, other_user, participant_1_id, participant_2_id, ...rest },
    fragments: [{ field: 'content', text: content, ranges: [[0, 3]] }],
    score: 0,
  }
}

function finding(...hits: MessageHit[]): FakeClient {
  const client = new FakeClient(initialState({ conversations: [conversation(ben), conversation(chloe)] }))
  client.searchResult = { data: { data: hits, next_cursor: null, prev_cursor: null, has_more: false }, error: null }
  return client
}

const search = async (text: string): Promise<void> => {
  await userEvent.type(screen.getByRole('searchbox'), text)
}

const hits = async (): Promise<string[]> => {
  await screen.findAllByText((_, element) => element?.matches('[data-slot="hit"]') === true)
  return [...document.querySelectorAll('[data-slot="hit"]')].map(
    (one) =>
      `${one.querySelector('.rpt-hit-name')?.textContent}|${one.querySelector('.rpt-hit-text')?.textContent}`,
  )
}

describe('hits of all conversations', () => {
  it('name the conversation, and the author unless the conversation is named after them', async () => {
    const client = finding(
      hit(ben, 'the plan of Ben'),
      hit(ana, 'the plan of Ana'),
      hit(ben, 'the plan of the group', { kind: 'group', title: 'Planning', other_user: null }),
    )
    renderWith(client, <ConversationsList onConversationSelect={() => undefined} />)
    await search('the')
    expect(await hits()).toEqual([
      'Ben Olsen|the plan of Ben',
      'Ben Olsen|You: the plan of Ana',
      'Planning|Ben: the plan of the group',
    ])
  })

  it('are found together with conversations and people whose names match', async () => {
    const client = finding(hit(ben, 'Ben was here'))
    client.found = [ben, { ...chloe, id: 'f', full_name: 'Benedikt' }]
    renderWith(client, <ConversationsList onConversationSelect={() => undefined} />)
    await search('ben')
    await hits()
    expect(screen.getByRole('region', { name: 'Conversations' }).textContent).toBe('ConversationsBOBen Olsen')
    // Ben's conversation is already listed, so Ben is not listed again.
    expect(screen.getByRole('region', { name: 'People' }).textContent).toMatch(/^PeopleBBenedikt/)
  })
})

describe('MessageSearch', () => {
  it('names the sender within one conversation', async () => {
    const open = vi.fn()
    const one = hit(ana, 'the plan of Ana')
    renderWith(finding(one), <MessageSearch conversationId={one.conversation.id} onOpen={open} />)
    await search('the')
    expect(await hits()).toEqual(['You|the plan of Ana'])
    await userEvent.click(document.querySelector('[data-slot="hit"]') as Element)
    expect(open).toHaveBeenCalledWith(one)
  })

  it('shows an error, and can repeat the request', async () => {
    const client = finding(hit(ben, 'the plan'))
    const { searchResult } = client
    const error = { message: 'Too slow.', code: 'internal', status: 500, hint: null, retryAfter: null, requestId: null }
    client.searchResult = { data: null, error: error as never }
    renderWith(client, <MessageSearch onOpen={() => undefined} />)
    await search('the')
    const failure = await screen.findByRole('alert')
    expect(failure.textContent).toContain('Too slow.')
    expect(failure.textContent).toContain('Code: internal')
    client.searchResult = searchResult
    await userEvent.click(screen.getByRole('button', { name: 'Try again' }))
    expect(await hits()).toEqual(['Ben Olsen|the plan'])
  })
})

describe('people', () => {
  it('are shown with their team to admins', async () => {
    const person = { ...ben, team_id: 't1' }
    const { me } = initialState()
    const open = (role: 'user' | 'admin'): void => {
      const teams = [{ id: 't1', name: 'Sales' }]
      const client = new FakeClient(initialState({ me: { ...me, role, teams } }))
      client.found = [person]
      renderWith(client, <NewChatDialog isOpen onClose={() => undefined} onCreateConversation={() => undefined} />)
    }
    open('admin')
    expect((await screen.findByRole('option')).textContent).toContain('Sales')
    document.body.replaceChildren()
    open('user')
    expect((await screen.findByRole('option')).textContent).not.toContain('Sales')
  })
})
