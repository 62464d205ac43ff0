// What the connection needs of a socket. `realtime-socket.ts` implements it over realtime-js.

import type { Input } from './inputs'

export interface SocketHandlers {
  onOpen(): void
  /** The socket is gone, however it ended. Called at most once, and never after `close`. */
  onClose(reason: string): void
  /** Anything was received: the connection is alive. */
  onReceived(): void
}

export interface ChannelHandlers {
  /** Row changes of the channel are live, or may have been missed. */
  onSystem(message: { isLive: boolean; text: string }): void
  onInput(input: Input): void
  /** The server ended the channel, or refused it. */
  onClosed(reason: string): void
}

export interface ChatSocket {
  /** Opens the socket in the name of the token's user. */
  open(token: string, handlers: SocketHandlers): void
  /** Joins a private channel. `tables`: whose row changes it carries. Returns what leaves it. */
  join(topic: string, tables: readonly string[], handlers: ChannelHandlers): () => void
  /** Passes a new token to all channels. */
  setToken(token: string): void
  /** Asks for an answer, which `onReceived` reports. */
  heartbeat(): void
  close(): void
}
