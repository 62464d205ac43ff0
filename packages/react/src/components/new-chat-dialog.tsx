'use client'

import type { Person } from '@rapport-chat/client'
import { useEffect, useState, type ReactNode } from 'react'
import { useChatClient, useChatContext } from '../context/chat-context'
import { Dialog } from '../parts/dialog'
import { UserSearchInput } from './user-search-input'

export interface NewChatDialogProps {
  isOpen: boolean
  onClose: () => void
  /** Called when the conversation exists. */
  onCreateConversation: (conversationId: string, person: Person) => void
  currentUserId?: string
  teamId?: string
}

/** A dialog that finds a person and opens the conversation with them. */
export function NewChatDialog({ isOpen, ...rest }: NewChatDialogProps): ReactNode {
  return isOpen ? <OpenDialog {...rest} /> : null
}

interface Contacts {
  readonly recents: readonly Person[]
  readonly teamMembers: readonly Person[]
}

function hasConversation(contact: { conversation_id?: string | null }): boolean {
  return Boolean(contact.conversation_id)
}

function OpenDialog({ onClose, onCreateConversation, teamId }: Omit<NewChatDialogProps, 'isOpen'>): ReactNode {
  const { strings } = useChatContext()
  const client = useChatClient()
  const [contacts, setContacts] = useState<Contacts | null>(null)
  const [refusal, setRefusal] = useState<string | null>(null)

  useEffect(() => {
    const abort = new AbortController()
    // The response contains people with a conversation, then other members of the user's teams.
    void client.api.getContacts({ limit: 50, signal: abort.signal }).then(({ data }) => {
      if (!data) return
      const [known, others] = [
        data.data.filter(hasConversation),
        data.data.filter((contact) => !hasConversation(contact)),
      ]
      setContacts({ recents: known, teamMembers: others })
    })
    return () => abort.abort()
  }, [client])

  const select = async (person: Person): Promise<void> => {
    setRefusal(null)
    const { data, error } = await client.openConversation(person.id)
    if (error) {
      setRefusal(error.message)
      return
    }
    onClose()
    onCreateConversation(data.id, person)
  }
  return (
    <Dialog title={strings.newChatTitle} onClose={onClose}>
      <UserSearchInput
        autoFocus
        onSelect={(person) => void select(person)}
        {...contacts}
        {...(teamId !== undefined && { teamId })}
      />
      {refusal && (
        <p className="rpt-refusal" role="alert">
          {refusal}
        </p>
      )}
    </Dialog>
  )
}
