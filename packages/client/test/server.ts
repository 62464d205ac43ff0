// Runs the real server with its own database. RAPPORT_BIN is the path of the binary.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, watch } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const BINARY = process.env['RAPPORT_BIN'] ?? new URL('../../../target/debug/rapport', import.meta.url).pathname

/** The time limit of the tests, far longer than a healthy server needs. */
export const PATIENCE_MS = 60_000

export interface Server {
  env: Record<string, string>
  stop(): Promise<void>
}

export async function startServer(): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), 'rapport-client-'))
  const file = join(folder, 'server.env')
  const child = spawn(BINARY, ['dev', '--ephemeral', '--port', '0', '--env-file', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output: string[] = []
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => output.push(String(data)))
  const written = new Promise<'written'>((resolve) => {
    const watcher = watch(folder, () => {
      if (!existsSync(file)) return
      watcher.close()
      resolve('written')
    })
  })
  const first = await Promise.race([written, once(child, 'exit')])
  if (first !== 'written') throw new Error(`the server ended:\n${output.join('')}`)
  const env = Object.fromEntries(
    [...readFileSync(file, 'utf8').matchAll(/^([A-Z_]+)="(.*)"$/gm)].map(([, key, value]) => [key, value]),
  ) as Record<string, string>
  return {
    env,
    async stop() {
      await terminate(child)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function terminate(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}
