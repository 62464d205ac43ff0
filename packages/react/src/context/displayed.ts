import type { ChatClient } from '@rapport-chat/client'

/** The number of components that display each conversation, per client. */
const displayed = new WeakMap<ChatClient, Map<string, number>>()

/** Counts a component that displays the conversation, until the returned function is called. */
export function countDisplayed(client: ChatClient, conversationId: string): () => void {
  const counts = displayed.get(client) ?? new Map<string, number>()
  displayed.set(client, counts)
  const add = (by: number): void => void counts.set(conversationId, (counts.get(conversationId) ?? 0) + by)
  add(1)
  return () => add(-1)
}

export function isDisplayed(client: ChatClient, conversationId: string): boolean {
  return (displayed.get(client)?.get(conversationId) ?? 0) > 0
}
