// Tests the sign-in of `rapport dev` with the published client of Supabase Auth.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { startServer } from './support.mjs'

let server
before(async () => (server = await startServer()))
after(async () => server && assert.equal(await server.stop(), 0))

/** Creates a separate client, as each page does. */
function page(fetch) {
  return createClient(server.url, server.env.ANON_KEY, {
    auth: { autoRefreshToken: false, persistSession: false },
    global: fetch ? { fetch } : {},
    realtime: { transport: WebSocket },
  })
}

const credentials = () => ({ email: 'ana@example.com', password: server.env.USER_PASSWORD })

test('a user signs in, refreshes, fetches their account and signs out', async () => {
  const client = page()
  const events = []
  client.auth.onAuthStateChange((event) => events.push(event))

  const { data, error } = await client.auth.signInWithPassword(credentials())
  assert.equal(error, null)
  assert.equal(data.user.id, server.env.USER_ID_ANA)
  const me = await fetch(`${server.base}/me`, { headers: { authorization: `Bearer ${data.session.access_token}` } })
  assert.equal((await me.json()).full_name, 'Ana Alvarez')

  const refreshed = await client.auth.refreshSession()
  assert.equal(refreshed.error, null)
  assert.notEqual(refreshed.data.session.refresh_token, data.session.refresh_token)
  const found = await client.auth.getUser()
  assert.equal(found.data.user.email, 'ana@example.com')

  assert.equal((await client.auth.signOut()).error, null)
  for (const event of ['SIGNED_IN', 'TOKEN_REFRESHED', 'SIGNED_OUT']) assert.ok(events.includes(event), event)

  const again = await page().auth.refreshSession({ refresh_token: refreshed.data.session.refresh_token })
  assert.equal(again.error.code, 'refresh_token_not_found')
  const gone = await page().auth.getUser(refreshed.data.session.access_token)
  assert.equal(gone.error.name, 'AuthSessionMissingError')
})

test('a wrong password returns the code that clients expect', async () => {
  const { error } = await page().auth.signInWithPassword({ ...credentials(), password: 'wrong' })
  assert.deepEqual([error.status, error.code], [400, 'invalid_credentials'])
})

test('a session that is about to expire is refreshed by the client itself', async () => {
  const client = page((address, options) => {
    const url = new URL(address)
    if (url.searchParams.get('grant_type') === 'password') url.searchParams.set('expires_in', '5')
    return fetch(url, options)
  })
  const { data } = await client.auth.signInWithPassword(credentials())
  assert.equal(data.session.expires_in, 5)
  const { data: later } = await client.auth.getSession()
  assert.notEqual(later.session.refresh_token, data.session.refresh_token)
  assert.equal(later.session.expires_in, 5)
})
