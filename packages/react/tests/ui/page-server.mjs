// Serves the built page at /demo/ with the content security policy that Rapport sends, and forwards
// all other requests and sockets to a Rapport server. A test can cut the connection and restore it.
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'
import { extname, join, normalize } from 'node:path'

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
}

/** Starts serving. `folder` contains the page; `upstream` is the Rapport server's port, or null. */
export async function servePage({ folder, upstream }) {
  const sockets = new Set()
  let isCut = false
  /** The number of requests for each path. */
  const requests = new Map()

  const server = createServer(async (incoming, outgoing) => {
    const { pathname } = new URL(incoming.url, 'http://page')
    if (pathname === '/demo' || pathname.startsWith('/demo/')) return serveFile(folder, pathname, outgoing)
    requests.set(pathname, (requests.get(pathname) ?? 0) + 1)
    if (isCut || !upstream) return incoming.destroy()
    const passed = request(
      { port: upstream, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode, answer.headers)
        answer.pipe(outgoing)
      },
    )
    passed.on('error', () => outgoing.destroy())
    outgoing.on('close', () => passed.destroy())
    incoming.pipe(passed)
  })
  server.on('upgrade', (incoming, socket, head) => {
    if (isCut || !upstream) return socket.destroy()
    const other = connect(upstream, '127.0.0.1', () => {
      const headers = incoming.rawHeaders.reduce(
        (text, part, index) => text + part + (index % 2 === 0 ? ': ' : '\r\n'),
        '',
      )
      other.write(`${incoming.method} ${incoming.url} HTTP/1.1\r\n${headers}\r\n`)
      other.write(head)
      socket.pipe(other).pipe(socket)
    })
    for (const one of [socket, other]) {
      sockets.add(one)
      one.on('error', () => undefined)
      one.on('close', () => {
        sockets.delete(one)
        socket.destroy()
        other.destroy()
      })
    }
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** Closes all connections and refuses new ones, like a server that is down. */
    cut() {
      isCut = true
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
    },
    restore() {
      isCut = false
    },
    requestsTo: (path) => requests.get(path) ?? 0,
    close: () => {
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
      return new Promise((done) => server.close(done))
    },
  }
}

async function serveFile(folder, pathname, outgoing) {
  const name = normalize(pathname.slice('/demo'.length)).replace(/^[/\\]+/, '')
  const path = join(folder, name === '' || name.endsWith('/') ? `${name}index.html` : name)
  const found = path.startsWith(folder) && (await stat(path).catch(() => null))
  if (!found?.isFile()) {
    outgoing.writeHead(404).end()
    return
  }
  outgoing.writeHead(200, {
    'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream',
    'Content-Security-Policy': POLICY,
    ETag: `"${found.mtimeMs}"`,
    'Cache-Control': 'no-cache',
  })
  createReadStream(path).pipe(outgoing)
}
