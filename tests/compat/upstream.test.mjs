// Sends the same calls of the official client to a recording service, once directly and once
// through the server, and compares what the service and the client receive.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { binary, Inbox, within } from './support.mjs'

const KEY = 'sb_publishable_0123456789012345678901_01234567'
const SECRET = 'sb_secret_0123456789012345678901_01234567'
const JWT_SECRET = 'a-secret-for-tests-that-is-long-enough-for-hs256'

/** The requests that the service received, without the parts that `docs/upstream.md` lists. */
let recorded = []
let service, projectUrl, project, gateway

before(async () => {
  service = createServer(respond)
  service.on('upgrade', accept)
  service.listen(0, '127.0.0.1')
  await once(service, 'listening')
  projectUrl = `http://127.0.0.1:${service.address().port}`
  project = await forwarder({ SUPABASE_URL: projectUrl })
  gateway = await forwarder({
    RAPPORT_UPSTREAM_REST_URL: projectUrl,
    RAPPORT_UPSTREAM_AUTH_URL: projectUrl,
    RAPPORT_UPSTREAM_STORAGE_URL: projectUrl,
    RAPPORT_UPSTREAM_FUNCTIONS_URL: projectUrl,
    RAPPORT_AUTH_PUBLISHABLE_KEYS: KEY,
    RAPPORT_AUTH_SECRET_KEYS: SECRET,
  })
})

after(async () => {
  for (const server of [project, gateway]) if (server) assert.equal(await server.stop(), 0)
  service?.closeAllConnections()
  service?.close()
})

/** Starts a server that only needs to forward: its database does not exist. */
async function forwarder(settings) {
  const env = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
    SUPABASE_JWT_SECRET: JWT_SECRET,
    RAPPORT_SERVER_PORT: '0',
    RAPPORT_LOG_FORMAT: 'json',
    ...settings,
  }
  const child = spawn(binary, ['serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = new Inbox()
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => output.push(String(data)))
  const ended = once(child, 'exit')
  ended.then(() => output.push('ended'))
  await output.until((lines) => /"listening"|ended/.test(lines.join('')), 'the server to listen')
  const address = output.items.join('').match(/"local_address":"([^"]+)"/)
  assert.ok(address, output.items.join(''))
  return {
    url: `http://${address[1]}`,
    log: () => output.items.join(''),
    async stop() {
      child.kill('SIGTERM')
      return (await within(ended, 'the server to stop'))[0]
    },
  }
}

/** Headers that differ between a direct and a forwarded request. */
const CHANGED = new Set(['host', 'connection', 'keep-alive', 'x-forwarded-for', 'x-request-id', 'transfer-encoding'])

function respond(request, response) {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    const headers = []
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      const name = request.rawHeaders[at].toLowerCase()
      // The boundary of a form is random.
      const value = request.rawHeaders[at + 1].replace(/boundary=.*/, 'boundary=…')
      if (!CHANGED.has(name)) headers.push(`${name}: ${value}`)
    }
    const body = Buffer.concat(chunks).toString('latin1').replace(/-+(formdata-)?[\w-]*\d{6,}[\w-]*/g, '…')
    recorded.push({
      line: `${request.method} ${request.url}`,
      headers: headers.sort(),
      body: createHash('sha256').update(body).digest('hex'),
      authorization: request.headers.authorization,
    })
    answer(request, response)
  })
}

function answer(request, response) {
  const url = request.url
  const json = (status, body, headers = {}) =>
    response.writeHead(status, { 'content-type': 'application/json', 'access-control-allow-origin': '*', ...headers }).end(JSON.stringify(body))
  if (url.includes('/missing')) return json(404, { code: 'PGRST205', message: 'no table', statusCode: '404', error: 'not_found' })
  if (url.includes('/functions/v1/events') || url.startsWith('/events')) {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    return void response.write('data: 1\n\n', () => response.end('data: 2\n\n'))
  }
  if (url.includes('/functions/v1/text')) return response.writeHead(200, { 'content-type': 'text/plain' }).end('hello')
  if (url.includes('/functions/v1/broken')) return json(500, { message: 'broken' })
  if (url.includes('/object/sign/')) return json(200, { signedURL: '/object/sign/b/x?token=t' })
  if (request.method === 'GET' && url.includes('/object/')) {
    const part = request.headers.range ? 206 : 200
    return response.writeHead(part, { 'content-type': 'application/octet-stream', etag: '"1"' }).end(Buffer.alloc(100_000, 7))
  }
  if (url.includes('/object/')) return json(200, { Id: '1', Key: 'b/x' })
  if (request.headers.accept === 'text/csv') return response.writeHead(200, { 'content-type': 'text/csv' }).end('id\n1\n')
  if (request.method === 'HEAD') return response.writeHead(206, { 'content-range': '0-0/1234', 'content-type': 'application/json' }).end()
  if (request.headers.accept?.includes('object')) return json(200, { id: 1 })
  return json(200, [{ id: 1 }], { 'content-range': '0-0/1234' })
}

/** Accepts a WebSocket, sends one frame, and closes the connection when data arrives. */
function accept(request, socket) {
  const accepted = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accepted.digest('base64')}\r\n\r\n`
  )
  // A frame of the server: the text "hi" without a mask.
  socket.write(Buffer.from([0x81, 2, 0x68, 0x69]))
  socket.on('data', () => socket.end())
  socket.on('error', () => {})
}

const client = (url, key = KEY) =>
  createClient(url, key, { auth: { autoRefreshToken: false, persistSession: false }, realtime: { transport: WebSocket } })

const text = async (blob) => ({ ...blob, data: blob.data && Buffer.from(await blob.data.arrayBuffer()).toString('base64') })
const stream = (size) =>
  new ReadableStream({
    start(controller) {
      for (let at = 0; at < size; at += 1000) controller.enqueue(new Uint8Array(1000).fill(at / 1000))
      controller.close()
    },
  })

/** Calls of the client library, by name. */
const CALLS = {
  select: (c) => c.from('todos').select('*'),
  'select with embedding and filters': (c) => c.from('todos').select('id, "a b", owner!inner(*)').eq('name', `O'Neil, "x"`).or('a.eq.1,b.is.null'),
  'select with text search': (c) => c.from('todos').select().textSearch('title', `'fat' & 'cat'`),
  'select with unicode': (c) => c.from('tödos').select().like('name', '%ä€😀%'),
  'head with count': (c) => c.from('todos').select('*', { count: 'exact', head: true }),
  'planned count': (c) => c.from('todos').select('*', { count: 'planned' }),
  range: (c) => c.from('todos').select().range(0, 9).order('id', { ascending: false }),
  single: (c) => c.from('todos').select().limit(1).single(),
  'maybe single': (c) => c.from('todos').select().limit(1).maybeSingle(),
  csv: (c) => c.from('todos').select().csv(),
  geojson: (c) => c.from('todos').select().geojson(),
  explain: (c) => c.from('todos').select().explain({ format: 'json', analyze: true }),
  'other schema': (c) => c.schema('chat').from('todos').select(),
  'other schema, write': (c) => c.schema('chat').from('todos').insert({ a: 1 }),
  insert: (c) => c.from('todos').insert([{ a: 1 }, { b: 'ü' }]),
  'insert and return': (c) => c.from('todos').insert({ a: 1 }).select().single(),
  upsert: (c) => c.from('todos').upsert({ id: 1 }, { onConflict: 'id', ignoreDuplicates: true }),
  update: (c) => c.from('todos').update({ a: null }).eq('id', 1),
  delete: (c) => c.from('todos').delete({ count: 'exact' }).in('id', [1, 2, 3]),
  rpc: (c) => c.rpc('f', { a: [1], b: { c: 2 } }),
  'rpc by get': (c) => c.rpc('f', { a: 1 }, { get: true }),
  'rpc by head': (c) => c.rpc('f', {}, { head: true, count: 'exact' }),
  'missing table': (c) => c.from('missing').select(),
  'sign in': (c) => c.auth.signInWithPassword({ email: 'a@b.c', password: 'secret' }),
  'sign up': (c) => c.auth.signUp({ email: 'a@b.c', password: 'secret' }),
  'one-time password': (c) => c.auth.signInWithOtp({ email: 'a@b.c' }),
  'reset password': (c) => c.auth.resetPasswordForEmail('a@b.c', { redirectTo: 'https://app.example/x?y=z' }),
  user: (c) => c.auth.getUser('a.b.c'),
  'admin list': (c) => c.auth.admin.listUsers({ page: 1, perPage: 2 }),
  'list buckets': (c) => c.storage.listBuckets(),
  'list files': (c) => c.storage.from('b').list('folder', { limit: 2, search: 'ä' }),
  'upload text': (c) => c.storage.from('b').upload('a b/ü.txt', 'hello', { upsert: true, contentType: 'text/plain' }),
  'upload bytes': (c) => c.storage.from('b').upload('x', new Uint8Array(70_000).fill(9), { metadata: { a: 'b' } }),
  'upload form': (c) => c.storage.from('b').upload('x', new Blob(['hello']), { cacheControl: '60' }),
  'upload stream': (c) => c.storage.from('b').upload('x', stream(50_000), { duplex: 'half' }),
  download: async (c) => text(await c.storage.from('b').download('x')),
  'signed URL': async (c) => {
    const { data, error } = await c.storage.from('b').createSignedUrl('x', 60)
    return { path: data && new URL(data.signedUrl).pathname, error }
  },
  'move file': (c) => c.storage.from('b').move('x', 'y'),
  'remove files': (c) => c.storage.from('b').remove(['x', 'y']),
  'missing file': async (c) => {
    const { error } = await c.storage.from('b').download('missing')
    return { name: error.name }
  },
  'function with JSON': (c) => c.functions.invoke('echo', { body: { a: 1 } }),
  'function with text': (c) => c.functions.invoke('text', { body: 'a', region: 'eu-west-1' }),
  'function by get': (c) => c.functions.invoke('echo?x=1', { method: 'GET', headers: { 'x-mine': '1' } }),
  'function with events': async (c) => {
    const { data, error } = await c.functions.invoke('events')
    return { data: await data.text(), error }
  },
  'broken function': async (c) => {
    const { error } = await c.functions.invoke('broken')
    return { name: error.name, status: error.context.status }
  },
}

/** Makes a call, and returns its result and the requests that it caused. */
async function observe(call, url) {
  recorded = []
  const { response: _, ...result } = await call(client(url))
  const requests = recorded.map(({ authorization: _, ...request }) => request)
  return { result: JSON.parse(JSON.stringify(result).replaceAll(url, 'URL')), requests }
}

for (const [name, call] of Object.entries(CALLS)) {
  test(`the service and the client receive the same: ${name}`, async () => {
    const direct = await observe(call, projectUrl)
    assert.ok(direct.requests.length > 0)
    assert.deepEqual(await observe(call, project.url), direct)
  })
}

test('a service that is reached directly receives its own paths and a token', async () => {
  recorded = []
  const { error } = await client(gateway.url).from('todos').select('*').eq('a', 'b/c')
  assert.equal(error, null)
  await client(gateway.url).storage.from('b').upload('x', 'y')
  const { data } = await client(gateway.url, SECRET).from('todos').select('*')
  assert.deepEqual(data, [{ id: 1 }])
  assert.deepEqual(
    recorded.map(({ line }) => line),
    ['GET /todos?select=*&a=eq.b%2Fc', 'POST /object/b/x', 'GET /todos?select=*']
  )
  const roles = recorded.map(({ authorization }) => JSON.parse(Buffer.from(authorization.split('.')[1], 'base64url')).role)
  assert.deepEqual(roles, ['anon', 'anon', 'service_role'])
})

test('the client libraries find the text of a refusal', async () => {
  const unknown = client(gateway.url, 'sb_publishable_unknown')
  const words = 'Invalid authentication credentials'
  const { error: rest, status } = await unknown.from('todos').select()
  assert.deepEqual([status, rest.message, rest.code], [401, words, 'api_key_invalid'])
  const { error: auth } = await unknown.auth.signInWithPassword({ email: 'a@b.c', password: 'x' })
  assert.deepEqual([auth.status, auth.message, auth.code], [401, words, 'api_key_invalid'])

  const nothing = await forwarder({})
  const { error: storage } = await client(nothing.url).storage.listBuckets()
  assert.deepEqual([storage.status, storage.statusCode], [503, '503'])
  assert.equal(storage.message, 'This server does not forward to this service')
  const { error: relay } = await client(nothing.url).functions.invoke('hello')
  assert.equal(relay.name, 'FunctionsRelayError')
  assert.equal(await nothing.stop(), 0)
})

test('the certificate of a service is verified', async () => {
  const file = (name) => new URL(`tls/${name}.pem`, import.meta.url).pathname
  const pem = (name) => readFileSync(file(name))
  const secure = createTlsServer({ cert: pem('certificate'), key: pem('key') }, respond)
  secure.listen(0, 'localhost')
  await once(secure, 'listening')
  const url = `https://localhost:${secure.address().port}`
  const select = (server) => client(server.url).from('todos').select()

  const trusting = await forwarder({ SUPABASE_URL: url, RAPPORT_UPSTREAM_TLS_CA: file('authority') })
  assert.deepEqual((await select(trusting)).data, [{ id: 1 }])
  assert.equal(await trusting.stop(), 0)

  const suspicious = await forwarder({ SUPABASE_URL: url })
  const { error, status } = await select(suspicious)
  assert.deepEqual([status, error.code], [502, 'upstream_unavailable'])
  assert.match(suspicious.log(), /UnknownIssuer/)
  assert.equal(await suspicious.stop(), 0)
  secure.closeAllConnections()
  secure.close()
})

test('a WebSocket of a function is connected', async () => {
  const socket = new WebSocket(`${project.url.replace('http', 'ws')}/functions/v1/ws`)
  const [message] = await within(once(socket, 'message'), 'the first frame')
  assert.equal(String(message), 'hi')
  const closed = once(socket, 'close')
  socket.send('bye')
  await within(closed, 'the end of the socket')
})

test('a second request on the connection of a forwarded one is answered', async () => {
  const { hostname, port } = new URL(project.url)
  const socket = connect(Number(port), hostname)
  const head = 'GET /rest/v1/todos HTTP/1.1\r\nhost: x\r\n'
  socket.write(`${head}\r\n${head}connection: close\r\n\r\n`)
  let received = ''
  socket.on('data', (data) => (received += data))
  await within(once(socket, 'close'), 'both responses')
  assert.equal(received.match(/HTTP\/1\.1 200 OK/g).length, 2)
})

test('no key is in the log', () => {
  for (const server of [project, gateway]) {
    for (const secret of [KEY, SECRET, 'Bearer', 'eyJ']) assert.ok(!server.log().includes(secret))
  }
})

test('a resumable upload continues after a broken connection', async () => {
  const CHUNK = 6 * 1024 * 1024
  const file = Buffer.alloc(20 * 1024 * 1024)
  for (let at = 0; at < file.length; at += 4) file.writeUInt32LE(at, at)
  let stored = Buffer.alloc(0)
  let breaks = 1
  // Storage names its own host in `Location`.
  const uploads = createServer((request, response) => {
    const headers = { 'tus-resumable': '1.0.0' }
    if (request.method === 'POST') {
      const location = `http://${request.headers.host}/storage/v1/upload/resumable/id`
      return response.writeHead(201, { ...headers, location }).end()
    }
    if (request.method === 'HEAD') {
      return response.writeHead(200, { ...headers, 'upload-offset': stored.length }).end()
    }
    assert.equal(Number(request.headers['upload-offset']), stored.length)
    request.on('data', (data) => {
      stored = Buffer.concat([stored, data])
      if (stored.length > CHUNK * 1.5 && breaks-- > 0) request.socket.destroy()
    })
    request.on('end', () => response.writeHead(204, { ...headers, 'upload-offset': stored.length }).end())
  })
  uploads.listen(0, '127.0.0.1')
  await once(uploads, 'listening')
  const server = await forwarder({ SUPABASE_URL: `http://127.0.0.1:${uploads.address().port}` })

  const headers = { 'tus-resumable': '1.0.0' }
  const endpoint = `${server.url}/storage/v1/upload/resumable`
  const created = await fetch(endpoint, { method: 'POST', headers: { ...headers, 'upload-length': file.length } })
  assert.equal(created.status, 201)
  const upload = new URL(created.headers.get('location'), endpoint)
  assert.equal(upload.origin, server.url)

  let broken = 0
  for (;;) {
    const state = await fetch(upload, { method: 'HEAD', headers })
    const offset = Number(state.headers.get('upload-offset'))
    if (offset === file.length) break
    const sent = await fetch(upload, {
      method: 'PATCH',
      headers: { ...headers, 'upload-offset': offset, 'content-type': 'application/offset+octet-stream' },
      body: file.subarray(offset, offset + CHUNK),
    }).catch(() => undefined)
    // The client may notice the end of the connection while it still sends, and then has no status.
    if (sent?.status === 204) assert.equal(sent.headers.get('upload-offset'), String(Math.min(offset + CHUNK, file.length)))
    else assert.equal(sent?.status ?? 502, 502), broken++
  }
  assert.equal(broken, 1)
  assert.ok(stored.equals(file))
  assert.equal(await server.stop(), 0)
  uploads.closeAllConnections()
  uploads.close()
})
