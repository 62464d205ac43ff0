import { expect, test } from 'vitest'
import { CONVERSATION, message } from '../test/fixtures'
import { fakeRoutes } from '../test/fake-routes'
import { createServerApi, loadInitialState } from './server'

const history = (length: number) => Array.from({ length }, (_, index) => message({ seq: index + 1 }))
const apiOf = (routes: ReturnType<typeof fakeRoutes>) => createServerApi({ url: 'http://test/', fetch: routes.fetch })

test('loads the list and its cursor, but no page unless one is requested', async () => {
  const routes = fakeRoutes(history(3))
  const { data } = await loadInitialState(apiOf(routes))
  expect(data).toMatchObject({ cursor: 'c0', conversations: [{ id: CONVERSATION }] })
  expect(data?.pages).toBeUndefined()
  expect(routes.seen).not.toContain('GET /messages')
})

test('loads the end of a conversation, or the messages around a given message or the first unread one', async () => {
  const pageOf = async (messageId?: string, unread_count = 0) => {
    const api = apiOf(fakeRoutes(history(200), { unread_count }))
    const request = { conversationId: CONVERSATION, ...(messageId !== undefined && { messageId }) }
    return (await loadInitialState(api, request)).data?.pages?.[0]
  }
  expect(await pageOf()).toMatchObject({ hasOlder: true, hasNewer: false })
  expect(await pageOf('m100')).toMatchObject({ hasOlder: true, hasNewer: true, around: 'm100' })
  expect(await pageOf(undefined, 150)).toMatchObject({ hasNewer: true, around: 'first_unread' })
})

test('loads the page after the cursor, so that no change in between is missed', async () => {
  const routes = fakeRoutes(history(3))
  await loadInitialState(apiOf(routes), { conversationId: CONVERSATION })
  expect(routes.seen.indexOf('GET /messages')).toBeGreaterThan(routes.seen.indexOf('GET /sync'))
})

test('a conversation that does not exist is an error', async () => {
  const { data, error } = await loadInitialState(apiOf(fakeRoutes()), { conversationId: 'another' })
  expect([data, error?.status]).toEqual([null, 404])
})
