// Changes that are shown before the server has confirmed them. They are applied to copies of the
// rows, never to the rows themselves, so a change is rolled back by removing it.

import type * as wire from './wire'

export interface Change {
  readonly messageId?: string
  readonly conversationId?: string
  readonly onMessage?: (message: wire.Message) => wire.Message
  readonly onConversation?: (conversation: wire.Conversation) => wire.Conversation
  /** Hides the message. */
  readonly hides?: boolean
}

export class Overlay {
  readonly #onChange: (change: Change) => void
  #changes: readonly Change[] = []

  constructor(onChange: (change: Change) => void) {
    this.#onChange = onChange
  }

  /** Shows a change until the returned function is called. */
  add(change: Change): () => void {
    this.#changes = [...this.#changes, change]
    this.#onChange(change)
    return () => {
      this.#changes = this.#changes.filter((other) => other !== change)
      this.#onChange(change)
    }
  }

  /** Returns the changes of a message, in the order in which they were made. */
  ofMessage(id: string): readonly Change[] {
    // This is called for each message whenever a timeline is built. The list of changes is almost
    // always empty, and the shared array avoids an allocation per message.
    return this.#changes.length === 0 ? NONE : this.#changes.filter(({ messageId }) => messageId === id)
  }

  onConversation(conversation: wire.Conversation): wire.Conversation {
    return this.#changes
      .filter(({ conversationId }) => conversationId === conversation.id)
      .reduce((row, { onConversation }) => onConversation?.(row) ?? row, conversation)
  }
}

const NONE: readonly Change[] = []

/** Adds or removes one user's reaction. */
export function withReaction(
  message: wire.Message,
  reaction: string,
  userId: string,
  isOn: boolean,
  isMe: boolean,
): wire.Message {
  const before = message.reactions.find((held) => held.reaction === reaction)
  const isAlready = isMe ? (before?.me ?? false) : (before?.user_ids.includes(userId) ?? false)
  if (isAlready === isOn) return message
  const changed: wire.Reaction = {
    reaction,
    emoji: reaction,
    count: (before?.count ?? 0) + (isOn ? 1 : -1),
    me: isMe ? isOn : (before?.me ?? false),
    user_ids: isOn ? [...(before?.user_ids ?? []), userId] : (before?.user_ids ?? []).filter((id) => id !== userId),
  }
  const reactions = before
    ? message.reactions.map((held) => (held === before ? changed : held))
    : [...message.reactions, changed]
  return { ...message, reactions: reactions.filter(({ count }) => count > 0) }
}
