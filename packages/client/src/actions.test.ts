import { afterEach, describe, expect, test, vi } from 'vitest'
import { conversation, CONVERSATION, ME, PEER } from '../test/fixtures'
import { fakeRoutes } from '../test/fake-routes'
import { createTestClient } from './testing'

afterEach(() => vi.resetModules())

/** Creates a client that has not loaded the actions yet, as in a browser. */
function freshClient() {
  const routes = fakeRoutes()
  const { client } = createTestClient(
    {
      userId: ME,
      accessToken: async () => 'token',
      fetch: routes.fetch,
      initialState: { cursor: 'c1', conversations: [conversation()] },
    },
    { actions: null },
  )
  return { routes, client }
}

/** Makes loading fail until the returned function is called. */
function failLoading(): () => void {
  vi.doMock('./actions', () => {
    throw new TypeError('Failed to fetch dynamically imported module')
  })
  return () => vi.doUnmock('./actions')
}

describe('actions', () => {
  test('are loaded when they are first used', async () => {
    const { routes, client } = freshClient()
    const { error } = await client.block(PEER)
    expect(error).toBeNull()
    expect(routes.seen).toContain('POST /blocks')
  })

  test('are loaded with the first conversation that is displayed, so that changes are shown at once', async () => {
    const { client } = freshClient()
    client.conversation(CONVERSATION).open()
    await vi.dynamicImportSettled()
    void client.archive(CONVERSATION, true)
    expect(client.getState().conversations[0]?.is_archived).toBe(true)
  })

  test('return an error if they cannot be loaded, and can be retried', async () => {
    const succeed = failLoading()
    const { routes, client } = freshClient()
    expect((await client.block(PEER)).error?.code).toBe('network')
    succeed()
    expect((await client.block(PEER)).error).toBeNull()
    expect(routes.seen.filter((request) => request === 'POST /blocks')).toHaveLength(1)
  })

  test('a conversation shows that they cannot be loaded, and can be opened again', async () => {
    const succeed = failLoading()
    const { client } = freshClient()
    const room = client.conversation(CONVERSATION)
    room.open()
    expect(room.getTimeline().status).toBe('loading')
    await vi.waitUntil(() => room.getTimeline().status !== 'loading')
    expect(room.getTimeline()).toMatchObject({ status: 'error', error: { code: 'network' } })
    expect((await room.jumpTo('m1')).error?.code).toBe('network')
    succeed()
    room.open()
    await vi.waitUntil(() => room.getTimeline().status === 'ready')
    expect(room.getTimeline().error).toBeNull()
  })
})
