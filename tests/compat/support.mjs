// What these tests share: the real server with its own database, the tested clients, a proxy that
// interrupts connections, and waiting for signals instead of fixed times.

import { execFileSync, spawn } from 'node:child_process'
import { createHmac, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, watch } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createClient } from '@supabase/supabase-js'
import pg from 'pg'
import WebSocket from 'ws'

const require = createRequire(import.meta.url)
const { RealtimeClient: Realtime210 } = require('realtime-js-2.10')
const { RealtimeClient: Realtime211 } = require('realtime-js-2.11')

export const binary = process.env.COMPAT_SERVER ?? new URL('../../target/debug/rapport', import.meta.url).pathname

/** Default timeout of a wait, far above what a healthy server needs. */
export const PATIENCE_MS = 20_000

/** Timeout for a shutdown, slightly longer than the server's own deadline. */
const STOP_MS = 25_000

/** Starts `rapport dev` on a free port, with a database that is removed when it stops. */
export async function startServer(...args) {
  const folder = mkdtempSync(join(tmpdir(), 'rapport-compat-'))
  const file = join(folder, 'server.env')
  const child = spawn(binary, ['dev', '--ephemeral', '--port', '0', '--env-file', file, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Tests write faster than users, so the limits for sending are off.
    env: { RAPPORT_CHAT_LIMITS_SEND_PER_SECOND: '0', RAPPORT_CHAT_LIMITS_SEND_PER_MINUTE: '0', ...process.env },
  })
  const output = []
  child.stdout.on('data', (data) => output.push(data))
  child.stderr.on('data', (data) => output.push(data))
  const ended = once(child, 'exit')
  const written = new Promise((resolve) => {
    const watcher = watch(folder, () => existsSync(file) && (watcher.close(), resolve('written')))
  })
  const first = await within(Promise.race([written, ended]), 'the server to be ready', 60_000)
  if (first !== 'written') throw new Error(`the server ended:\n${Buffer.concat(output)}`)
  const env = parseEnv(readFileSync(file, 'utf8'))
  return {
    env,
    url: env.API_URL,
    base: `${env.API_URL}/api/supabase/user-chat`,
    log: () => Buffer.concat(output).toString(),
    async stop() {
      child.kill('SIGTERM')
      const [code] = await within(ended, () => `the server to stop; its log ends with\n${this.log().slice(-3000)}`, STOP_MS)
      rmSync(folder, { recursive: true, force: true })
      return code
    },
  }
}

/** Returns a port of this machine without a listener. */
export async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address()
  listener.close()
  await once(listener, 'close')
  return port
}

/** Starts `rapport serve` on this port with the database of `server` and a separate slot. */
export async function serve(server, port) {
  const env = {
    ...process.env,
    RAPPORT_DATABASE_URL: server.env.DB_URL,
    RAPPORT_AUTH_JWT_SECRET: server.env.JWT_SECRET,
    RAPPORT_SERVER_PORT: String(port),
    RAPPORT_REPLICATION_SLOT_NAME: 'compat_beside',
  }
  const child = spawn(binary, ['serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = new Inbox()
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => output.push(String(data)))
  const ended = once(child, 'exit')
  ended.then(() => output.push('ended'))
  const isReady = () => fetch(`http://127.0.0.1:${port}/ready`).then(({ ok }) => ok, () => false)
  await output.until((lines) => /listening|ended/.test(lines.join('')), 'the server to listen')
  const end = Date.now() + PATIENCE_MS
  while (!(await isReady())) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`not ready:\n${output.items.join('')}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return {
    async stop() {
      child.kill('SIGTERM')
      const [code] = await within(ended, 'the server to stop')
      return code
    },
  }
}

/** Parses the values of a file in the format of `supabase status -o env`. */
export function parseEnv(text) {
  return Object.fromEntries([...text.matchAll(/^([A-Z_]+)="(.*)"$/gm)].map(([, key, value]) => [key, value]))
}

/** Fails if `promise` takes longer than `ms`. `what`, or its result, is named in the error. */
export async function within(promise, what, ms = PATIENCE_MS) {
  let timer
  const late = new Promise((_, reject) => {
    const text = () => (typeof what === 'function' ? what() : what)
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${text()}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A list that can be waited on: `until` resolves as soon as its items satisfy `test`. */
export class Inbox {
  items = []
  #waiting = new Set()

  push = (item) => {
    this.items.push(item)
    for (const check of this.#waiting) check()
  }

  until(test, what) {
    const found = new Promise((resolve) => {
      const check = () => {
        if (!test(this.items)) return
        this.#waiting.delete(check)
        resolve(this.items)
      }
      this.#waiting.add(check)
      check()
    })
    return within(found, () => `${what}; so far ${JSON.stringify(this.items).slice(0, 2000)}`)
  }

  /** Waits for an item that satisfies `test` and returns it. */
  async find(test, what) {
    await this.until((items) => items.some(test), what)
    return this.items.find(test)
  }
}

/** Creates a supabase-js client that authenticates with `token`. */
export async function clientFor(server, token, realtime = {}) {
  const client = createClient(server.url, server.env.ANON_KEY, {
    accessToken: async () => (typeof token === 'function' ? token() : token),
    realtime: { transport: WebSocket, ...realtime },
  })
  await client.realtime.setAuth()
  return client
}

/**
 * The tested client libraries, each with a function that creates a client authenticated with
 * `token`. All clients have `channel()`, and `closing()` releases all their resources.
 */
export const CLIENTS = {
  'supabase-js 2.119': async (server, token) => {
    const client = await clientFor(server, token)
    return Object.assign(client, { closing: () => client.removeAllChannels() })
  },
  'supabase-js 2.119 with vsn 1.0.0': async (server, token) => {
    const client = await clientFor(server, token, { vsn: '1.0.0' })
    return Object.assign(client, { closing: () => client.removeAllChannels() })
  },
  // The option for another transport is broken in this version, so it uses the `ws` package that it
  // finds itself.
  'realtime-js 2.10': (server, token) => oldClient(Realtime210, server, token, {}),
  'realtime-js 2.11': (server, token) => oldClient(Realtime211, server, token, { transport: WebSocket }),
}

/** Returns whether this client uses version 2 of the protocol, which has binary broadcasts. */
export const isBinary = (name) => name === 'supabase-js 2.119'

async function oldClient(Client, server, token, options) {
  const client = new Client(`${server.url.replace('http', 'ws')}/realtime/v1`, {
    params: { apikey: server.env.ANON_KEY },
    ...options,
  })
  await client.setAuth(token)
  const opened = new Inbox()
  client.stateChangeCallbacks.open.push(() => opened.push('open'))
  return Object.assign(client, { opened, closing: () => client.disconnect() })
}

/** A TCP proxy in front of the server. It can cut, refuse or silently stall connections. */
export class Wire {
  #pairs = new Set()
  #isStalled = false
  #isRefusing = false

  /** Starts a proxy for the server at `url`. The URL of the proxy is `wire.url`. */
  static async to(url) {
    const wire = new Wire()
    const { hostname, port } = new URL(url)
    wire.listener = createServer((near) => wire.#join(near, connect({ host: hostname, port })))
    wire.listener.listen(0, '127.0.0.1')
    await once(wire.listener, 'listening')
    wire.url = `http://127.0.0.1:${wire.listener.address().port}`
    return wire
  }

  #join(near, far) {
    if (this.#isRefusing) {
      near.destroy()
      far.destroy()
      return
    }
    const pair = [near, far]
    this.#pairs.add(pair)
    const end = () => {
      near.destroy()
      far.destroy()
      this.#pairs.delete(pair)
    }
    for (const [from, to] of [pair, [far, near]]) {
      from.on('data', (data) => this.#isStalled || to.write(data))
      from.on('error', end)
      from.on('close', end)
    }
  }

  /** Closes every connection immediately. */
  cut() {
    for (const [near, far] of this.#pairs) {
      near.resetAndDestroy()
      far.resetAndDestroy()
    }
  }

  /** Drops all bytes from now on without closing connections, like a dead network. */
  stall() {
    this.#isStalled = true
  }

  /** Resumes forwarding bytes. */
  resume() {
    this.#isStalled = false
  }

  /** Refuses or accepts new connections. */
  refuse(isRefusing) {
    this.#isRefusing = isRefusing
  }

  async close() {
    this.cut()
    this.listener.close()
    await once(this.listener, 'close')
  }
}

/**
 * Joins a channel. Resolves when the client reports `SUBSCRIBED`. Row changes may be live only
 * later, which a message in `system` reports.
 */
export async function subscribe(channel) {
  const statuses = new Inbox()
  const system = new Inbox()
  channel.on('system', {}, system.push)
  channel.subscribe((status, error) => statuses.push({ status, error: error?.message }))
  await statuses.find(({ status }) => status === 'SUBSCRIBED', 'SUBSCRIBED')
  return { statuses, system }
}

/** Sends one request to the chat routes, authenticated with `token`. */
export async function call(server, token, method, path, body, headers = {}) {
  const response = await fetch(server.base + path, {
    method,
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text && JSON.parse(text) }
}

/** Sends a message and returns the stored row. */
export async function send(server, token, body) {
  const answer = await call(server, token, 'POST', '/messages', { client_message_id: randomUUID(), ...body })
  if (answer.status !== 201) throw new Error(`sending failed: ${answer.status} ${JSON.stringify(answer.body)}`)
  return answer.body
}

/** Returns an HS256 token with these claims. */
export function mint(server, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const payload = { role: 'authenticated', aud: 'authenticated', iat: now, exp: now + 3600, ...claims }
  const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(payload)}`
  return `${head}.${createHmac('sha256', server.env.JWT_SECRET).update(head).digest('base64url')}`
}

/** Opens a database connection as the owner. */
export async function database(server) {
  const client = new pg.Client({ connectionString: server.env.DB_URL })
  await client.connect()
  return client
}

/** Returns a function that stops, starts or restarts the PostgreSQL of `db` with `pg_ctl`. */
export async function postgres(db) {
  const folder = (await db.query('show data_directory')).rows[0].data_directory
  // The first word of the options file is the path of PostgreSQL's server program. pg_ctl is in the
  // same directory.
  const [program] = readFileSync(join(folder, 'postmaster.opts'), 'utf8').split(' ')
  const control = join(dirname(program), 'pg_ctl')
  if (!existsSync(control)) throw new Error(`${control} is not there`)
  const { uid, gid } = statSync(folder)
  const asOwner = process.getuid() === uid ? {} : { uid, gid }
  // Stopping PostgreSQL breaks the connection, which is intended here, so the error is ignored.
  db.on('error', () => {})
  const options = { stop: ['-m', 'fast'], start: ['-l', join(folder, 'postgres.log')], restart: ['-m', 'fast'] }
  return (word) =>
    execFileSync(control, ['-D', folder, ...options[word], '-w', word], { stdio: 'ignore', cwd: '/', ...asOwner })
}
