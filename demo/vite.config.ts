import { fileURLToPath } from 'node:url'
import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

// The page is built from the packages' sources, so that they need not be built first.
export default defineConfig({
  root: here('.'),
  base: '/demo/',
  publicDir: here('./public'),
  plugins: [react()],
  resolve: {
    alias: [
      { find: '@rapport-chat/react/styles.css', replacement: here('../packages/react/src/styles.css') },
      { find: /^@rapport-chat\/react\/strings\/(.*)$/, replacement: here('../packages/react/src/strings/$1.ts') },
      { find: '@rapport-chat/react', replacement: here('../packages/react/src/index.ts') },
      { find: '@rapport-chat/client', replacement: here('../packages/client/src/index.ts') },
    ],
    dedupe: ['react', 'react-dom'],
  },
  build: {
    outDir: here('./dist'),
    emptyOutDir: true,
    target: 'es2022',
    // The page's Content-Security-Policy allows no inline content.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { index: here('./index.html'), gallery: here('./gallery/index.html') } },
  },
})
