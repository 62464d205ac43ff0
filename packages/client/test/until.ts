import type { ChatClient } from '../src/chat-client'
import type { ChatState } from '../src/types'
import { PATIENCE_MS } from './server'

/** Resolves as soon as the state passes the test, which runs after each change. */
export function until(client: ChatClient, what: string, test: (state: ChatState) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (end: () => void) => {
      clearTimeout(timer)
      unsubscribe()
      end()
    }
    const timer = setTimeout(() => {
      const { connection, conversations, timelines } = client.getState()
      finish(() =>
        reject(
          new Error(`waited for ${what}: ${JSON.stringify({ connection, conversations, timelines }).slice(0, 3_000)}`),
        ),
      )
    }, PATIENCE_MS)
    const unsubscribe = client.subscribe(() => test(client.getState()) && finish(resolve))
    if (test(client.getState())) finish(resolve)
  })
}
