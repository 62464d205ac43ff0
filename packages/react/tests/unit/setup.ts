import { cleanup, configure } from '@testing-library/react'
import { afterEach } from 'vitest'

// Effects that are not undone properly show themselves when they run twice.
configure({ reactStrictMode: true })
afterEach(cleanup)

// jsdom has no layout, so it cannot scroll.
if (typeof Element !== 'undefined') Element.prototype.scrollIntoView ??= () => undefined
