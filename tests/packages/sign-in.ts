import type { ChatClientOptions } from '@rapport-chat/client'

interface People {
  readonly anon_key: string
  readonly password: string
  readonly people: readonly { readonly id: string; readonly email: string }[]
}

/** Signs in Ana, a demonstration user of `rapport dev`. */
export async function signIn(): Promise<ChatClientOptions> {
  const { anon_key: anonKey, password, people }: People = await (await fetch('/dev/people')).json()
  const person = people.find(({ email }) => email.startsWith('ana@'))
  if (!person) throw new Error('the server has no demonstration users')
  const response = await fetch('/auth/v1/token?grant_type=password', {
    method: 'POST',
    headers: { 'content-type': 'application/json', apikey: anonKey },
    body: JSON.stringify({ email: person.email, password }),
  })
  const { access_token: token }: { access_token: string } = await response.json()
  return {
    userId: person.id,
    socketUrl: location.origin.replace(/^http/, 'ws'),
    anonKey,
    accessToken: async () => token,
  }
}
