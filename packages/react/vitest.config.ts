import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

const client = { find: '@rapport-chat/client', replacement: path('../client/src/index.ts') }

// npm installs React 18 below this folder, because another version is at the root.
const react18 = [
  { find: /^(react|react-dom)(\/.*)?$/, replacement: `${path('../../tests/react-18/node_modules')}/$1$2` },
  // The module for bundlers: Node.js would load the other one, which requires React by itself.
  { find: '@testing-library/react', replacement: path('../../node_modules/@testing-library/react/dist/@testing-library/react.esm.js') },
]

export default defineConfig({
  test: {
    environment: 'jsdom',
    include: ['tests/unit/**/*.test.{ts,tsx}'],
    setupFiles: ['tests/unit/setup.ts'],
    projects: [
      { extends: true, resolve: { alias: [client] }, test: { name: 'React 19', env: { REACT_MAJOR: '19' } } },
      {
        extends: true,
        resolve: { alias: [client, ...react18] },
        test: {
          name: 'React 18',
          env: { REACT_MAJOR: '18' },
          // Modules that import React are transformed, so that they import the same one.
          server: { deps: { inline: ['lucide-react', 'frimousse', /@testing-library\/react/] } },
        },
      },
    ],
  },
})
