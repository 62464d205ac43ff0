import type { Cancel } from './clock'

/**
 * The interval between heartbeats. By default, the server closes a socket that is silent for 120
 * seconds.
 */
export const HEARTBEAT_MS = 25_000

/**
 * Calls the function every 25 seconds. A worker keeps the time, because browsers run the timers of
 * hidden tabs only once a minute. After such a pause, the connection would count as dead
 * (`SOCKET_SILENCE_MS`). If no worker can be started, for example because the page's
 * Content-Security-Policy forbids it, a timer is used.
 */
export function startHeartbeat(beat: () => void): Cancel {
  let cancel: Cancel
  const beatByTimer = () => {
    const timer = setInterval(beat, HEARTBEAT_MS)
    cancel = () => clearInterval(timer)
  }
  try {
    const worker = new Worker(new URL('./heartbeat-worker.js', import.meta.url), { type: 'module' })
    cancel = () => worker.terminate()
    worker.onmessage = beat
    worker.onerror = () => {
      worker.terminate()
      beatByTimer()
    }
    worker.postMessage(HEARTBEAT_MS)
  } catch {
    beatByTimer()
  }
  return () => cancel()
}
