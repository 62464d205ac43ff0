// The socket and realtime-js are loaded while the first requests run: the first page needs neither.

import type { RealtimeSocketSettings } from './realtime-socket'
import type { ChatSocket, SocketHandlers } from './socket'

type Parts = Pick<typeof import('./realtime-socket'), 'RealtimeSocket'>

/** A socket whose code is loaded when it is first opened. */
export function laterSocket(
  settings: RealtimeSocketSettings,
  load: () => Promise<Parts> = () => import('./realtime-socket'),
): ChatSocket {
  let socket: ChatSocket | null = null
  let wanted: SocketHandlers | null = null
  return {
    open(token, handlers) {
      wanted = handlers
      load().then(
        ({ RealtimeSocket }) => {
          if (wanted !== handlers) return
          socket ??= new RealtimeSocket(settings)
          socket.open(token, handlers)
        },
        (cause) => {
          if (wanted === handlers) handlers.onClose(String(cause))
        },
      )
    },
    join: (...options) => socket?.join(...options) ?? (() => {}),
    setToken: (token) => socket?.setToken(token),
    heartbeat: () => socket?.heartbeat(),
    close() {
      wanted = null
      socket?.close()
    },
  }
}
