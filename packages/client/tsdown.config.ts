import { defineConfig } from 'tsdown'

export default defineConfig({
  entry: ['src/index.ts', 'src/server.ts', 'src/testing.ts'],
  format: 'esm',
  // One file per module, so that bundlers drop what a page does not use.
  unbundle: true,
  dts: true,
  platform: 'neutral',
  target: 'es2022',
})
