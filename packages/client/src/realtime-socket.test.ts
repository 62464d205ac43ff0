import { expect, test } from 'vitest'
import { endpoint } from './realtime-socket'

test('the address of the socket needs no path', () => {
  expect(endpoint('wss://chat.example.com')).toBe('wss://chat.example.com/realtime/v1')
  expect(endpoint('https://chat.example.com/')).toBe('wss://chat.example.com/realtime/v1')
  expect(endpoint('http://127.0.0.1:4000/realtime/v1')).toBe('ws://127.0.0.1:4000/realtime/v1')
  expect(endpoint('wss://chat.example.com/chat/socket/')).toBe('wss://chat.example.com/chat/socket')
})
