import { defineConfig } from 'tsdown'

export default defineConfig({
  // The worker is loaded by its URL, so it must be a separate file.
  entry: ['src/index.ts', 'src/server.ts', 'src/testing.ts', 'src/heartbeat-worker.ts'],
  format: 'esm',
  // One file per module, so that bundlers can drop the modules that a page does not use.
  unbundle: true,
  dts: true,
  platform: 'neutral',
  target: 'es2022',
  outExtensions: () => ({ js: '.js', dts: '.d.ts' }),
})
