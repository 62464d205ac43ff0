import { cleanup, configure } from '@testing-library/react'
import { afterEach } from 'vitest'

// In strict mode, effects run twice, which reveals those with incomplete cleanup.
configure({ reactStrictMode: true })
afterEach(cleanup)

// jsdom has no layout, so it cannot scroll.
if (typeof Element !== 'undefined') Element.prototype.scrollIntoView ??= () => undefined
