'use client'

import type { PresenceStatus } from '@rapport-chat/client'
import { UserRound } from 'lucide-react'
import { useState, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { displayName, initials, toneOf } from '../format/names'
import { PresenceDot } from './presence-dot'

export interface AvatarPerson {
  readonly id: string
  readonly full_name?: string | null
  readonly avatar_url?: string | null
  readonly email?: string | null
}

export interface AvatarProps {
  person: AvatarPerson | null
  /** Pixels. */
  size?: number
  presence?: PresenceStatus | undefined
}

/** A picture, or initials on a tone that belongs to the person. Decorative: the name is beside it. */
export function Avatar(props: AvatarProps): ReactNode {
  const { components } = useChatContext()
  const Replacement = components.Avatar
  return Replacement ? <Replacement {...props} /> : <DefaultAvatar {...props} />
}

function DefaultAvatar({ person, size = 40, presence }: AvatarProps): ReactNode {
  const { strings } = useChatContext()
  const [failed, setFailed] = useState<string | null>(null)
  const address = person?.avatar_url ?? null
  return (
    <span
      className="rpt-avatar"
      data-slot="avatar"
      data-tone={toneOf(person?.id ?? '')}
      data-size={size}
      aria-hidden="true"
    >
      {address && address !== failed ? (
        <img
          className="rpt-avatar-image"
          src={address}
          alt=""
          width={size}
          height={size}
          loading="lazy"
          decoding="async"
          onError={() => setFailed(address)}
        />
      ) : (
        // A person who is not loaded yet, or was deleted, has no name and so no initials.
        <span className="rpt-avatar-initials">
          {person?.full_name || person?.email ? (
            initials(displayName(person, strings))
          ) : (
            <UserRound size={Math.round(size * 0.5)} />
          )}
        </span>
      )}
      {presence && <PresenceDot status={presence} />}
    </span>
  )
}
