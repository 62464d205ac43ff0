import { render, type RenderResult } from '@testing-library/react'
import type { ReactNode } from 'react'
import { ChatProvider, type ChatProviderProps } from '../../src'
import type { FakeClient } from '../../src/testing/fake-client'

/** Renders `content` inside a provider with a client in memory. */
export function renderWith(
  client: FakeClient,
  content: ReactNode,
  props: Partial<ChatProviderProps> = {},
): RenderResult {
  return render(
    <ChatProvider client={client} {...props}>
      {content}
    </ChatProvider>,
  )
}
