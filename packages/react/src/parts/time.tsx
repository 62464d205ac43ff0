'use client'

import { useContext, type ReactNode } from 'react'
import { ChatContext } from '../context/base-context'
import { useNow, useTimeFormat } from '../context/use-time'

interface TimeProps {
  value: string
  kind?: 'time' | 'short' | 'moment'
  className?: string
}

/** A time in the viewer's zone. It is empty until mounted, since the server does not know the zone. */
export function Time({ value, kind = 'time', className }: TimeProps): ReactNode {
  const { isMounted } = useContext(ChatContext)
  const format = useTimeFormat()
  const now = useNow()
  const date = new Date(value)
  const text =
    kind === 'time' ? format.time(date) : kind === 'short' ? format.short(date, now) : format.moment(date, now)
  return (
    <time className={className} dateTime={value} title={isMounted ? format.full(date) : undefined}>
      {isMounted ? text : ''}
    </time>
  )
}
