'use client'

import { useContext, type ReactNode } from 'react'
import { ChatContext } from '../context/base-context'
import { useTimeFormat, useToday } from '../context/use-time'

interface TimeProps {
  value: string
  kind?: 'time' | 'short' | 'moment'
  className?: string
}

/** A time in the user's time zone. It is empty until mounted: the server does not know the zone. */
export function Time({ value, kind = 'time', className }: TimeProps): ReactNode {
  const { isMounted } = useContext(ChatContext)
  const format = useTimeFormat()
  const today = useToday()
  const date = new Date(value)
  const text =
    kind === 'time' ? format.time(date) : kind === 'short' ? format.short(date, today) : format.moment(date, today)
  return (
    <time
      className={className}
      dateTime={value}
      // A list has hundreds of times, so a full date is formatted only when the user points at it.
      onPointerEnter={(event) => {
        event.currentTarget.title = format.full(date)
      }}
    >
      {isMounted ? text : ''}
    </time>
  )
}
