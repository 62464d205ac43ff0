import { defineConfig } from 'tsdown'

export default defineConfig({
  entry: [
    'src/index.ts',
    'src/navigation.ts',
    'src/emoji.ts',
    'src/strings/types.ts',
    'src/strings/de.ts',
    'src/strings/ar.ts',
  ],
  format: 'esm',
  platform: 'browser',
  target: 'es2022',
  dts: true,
  // Emits one file per module, so that 'use client' stays at the top of the files that need it.
  unbundle: true,
  outExtensions: () => ({ js: '.js', dts: '.d.ts' }),
  external: [/^react/, /^@rapport-chat\/client/, 'frimousse', 'lucide-react'],
})
