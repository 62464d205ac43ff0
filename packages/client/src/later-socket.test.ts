import { expect, test, vi } from 'vitest'
import { laterSocket } from './later-socket'
import type { SocketHandlers } from './socket'
import { FakeSocket, settled } from './testing'

function prepared(load?: () => Promise<never>) {
  const made: FakeSocket[] = []
  class Socket extends FakeSocket {
    constructor() {
      super()
      made.push(this)
    }
  }
  const parts = { RealtimeSocket: Socket }
  const socket = laterSocket({ url: 'ws://test', anonKey: '' }, load ?? (async () => parts as never))
  const handlers: SocketHandlers = { onOpen: vi.fn(), onClose: vi.fn(), onReceived: vi.fn(), onBeat: vi.fn() }
  return { socket, handlers, made }
}

test('is loaded and opened when it is needed first, and then used again', async () => {
  const { socket, handlers, made } = prepared()
  await settled()
  expect(made).toEqual([])
  socket.open('first', handlers)
  await settled()
  made[0]!.accept()
  expect(handlers.onOpen).toHaveBeenCalledOnce()
  socket.join('topic', [], { onInput() {}, onSystem() {}, onClosed() {} })
  made[0]!.beat()
  expect(handlers.onBeat).toHaveBeenCalledOnce()
  socket.close()
  socket.open('second', handlers)
  await settled()
  expect(made).toHaveLength(1)
  expect(made[0]).toMatchObject({ opens: 2, tokens: ['first', 'second'], isWanted: true })
})

test('closed while it is loading, it opens nothing', async () => {
  const { socket, handlers, made } = prepared()
  socket.open('token', handlers)
  socket.close()
  await settled()
  expect(made).toEqual([])
  expect(handlers.onClose).not.toHaveBeenCalled()
})

test('if it cannot be loaded, the attempt has failed', async () => {
  const { socket, handlers } = prepared(() => Promise.reject(new TypeError('no network')))
  socket.open('token', handlers)
  await settled()
  expect(handlers.onClose).toHaveBeenCalledWith('TypeError: no network')
  socket.heartbeat()
  socket.setToken('token')
  socket.join('topic', [], { onInput() {}, onSystem() {}, onClosed() {} })()
  socket.close()
})
