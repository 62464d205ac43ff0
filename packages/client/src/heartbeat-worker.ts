// Receives one message with the interval in milliseconds. Sends a message after each interval.

self.onmessage = ({ data }: MessageEvent<number>) => {
  setInterval(() => self.postMessage(null), data)
}

export {}
