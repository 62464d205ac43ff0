'use client'

import type { ReactNode } from 'react'

/** A thin line, visible while the displayed content is being updated. It moves nothing. */
export function Progress({ isBusy }: { isBusy: boolean }): ReactNode {
  return <div className="rpt-progress" data-busy={isBusy || undefined} aria-hidden="true" />
}
