'use client'

import type { ReactNode } from 'react'

/** A thin line while what is shown is being brought up to date. It takes no room. */
export function Progress({ isBusy }: { isBusy: boolean }): ReactNode {
  return <div className="rpt-progress" data-busy={isBusy || undefined} aria-hidden="true" />
}
