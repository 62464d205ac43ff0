import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

const client = { find: '@rapport-chat/client', replacement: path('../client/src/index.ts') }

// npm installs React 18 in `tests/react-18`, because the root has another version.
const react18 = [
  { find: /^(react|react-dom)(\/.*)?$/, replacement: `${path('../../tests/react-18/node_modules')}/$1$2` },
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
          execArgv: ['--require', path('../../tests/react-18/resolve.cjs')],
          // frimousse is an ES module, so resolve.cjs does not affect its imports.
          server: { deps: { inline: ['frimousse'] } },
        },
      },
    ],
  },
})
