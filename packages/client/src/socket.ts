// The socket that `connection.ts` requires. `realtime-socket.ts` implements it with realtime-js.

import type { Input } from './inputs'

export interface SocketHandlers {
  onOpen(): void
  /** The socket was closed, for any reason. Called at most once, and never after `close`. */
  onClose(reason: string): void
  /** Something was received, so the connection is alive. */
  onReceived(): void
  /** Called every 25 seconds while the socket is open, even in a hidden tab. */
  onBeat(): void
}

export interface ChannelHandlers {
  /** The row changes of the channel are live or, without `isLive`, some may have been missed. */
  onSystem(message: { isLive: boolean; text: string }): void
  onInput(input: Input): void
  /** The server closed the channel or refused the join. */
  onClosed(reason: string): void
}

export interface ChatSocket {
  /** Opens the socket as the user of the token. */
  open(token: string, handlers: SocketHandlers): void
  /**
   * Joins a private channel that receives row changes of `tables`. The returned function leaves it.
   */
  join(topic: string, tables: readonly string[], handlers: ChannelHandlers): () => void
  /** Passes a new token to all channels. */
  setToken(token: string): void
  /** Sends a heartbeat. The reply calls `onReceived`. */
  heartbeat(): void
  close(): void
}
