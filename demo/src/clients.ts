import { createChatClient, type ChatClient } from '@rapport-chat/client'
import { Session, type DemoPerson, type People } from './session'

const clients = new Map<string, ChatClient>()

/**
 * Returns the client of a user. Each user has one client per page, which is created outside of
 * rendering. It is started at once, so that it signs in and requests the list while the page is
 * rendered.
 */
export function clientOf(people: People, person: DemoPerson): ChatClient {
  const known = clients.get(person.id)
  if (known) return known
  const parameters = new URLSearchParams(location.search)
  const session = new Session(people, person, parameters.get('token_lifetime'))
  const client = createChatClient({
    userId: person.id,
    socketUrl: `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/realtime/v1`,
    anonKey: people.anon_key,
    accessToken: session.accessToken,
  })
  client.start()
  clients.set(person.id, client)
  return client
}
