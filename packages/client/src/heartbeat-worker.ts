// Answers one message, the interval in milliseconds, with a message per interval.

self.onmessage = ({ data }: MessageEvent<number>) => {
  setInterval(() => self.postMessage(null), data)
}

export {}
