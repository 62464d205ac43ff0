'use client'

import type { PresenceStatus } from '@rapport-chat/client'
import { useContext, useState, type ReactNode } from 'react'
import { ChatContext } from '../context/base-context'
import { safeAddress } from '../format/address'
import { initials, knownName, toneOf } from '../format/names'
import { PersonIcon } from './icons'
import { PresenceDot } from './presence-dot'

export interface AvatarPerson {
  readonly id: string
  readonly full_name?: string | null
  readonly avatar_url?: string | null
  readonly email?: string | null
}

export interface AvatarProps {
  person: AvatarPerson | null
  /** The diameter in pixels. */
  size?: number
  presence?: PresenceStatus | undefined
}

/**
 * A person's picture, their initials on a tone derived from their id, or a neutral figure while no
 * name is known. It is decorative, because the name is next to it.
 */
export function Avatar(props: AvatarProps): ReactNode {
  const Replacement = useContext(ChatContext).components.Avatar
  return Replacement ? <Replacement {...props} /> : <DefaultAvatar {...props} />
}

function DefaultAvatar({ person, size = 40, presence }: AvatarProps): ReactNode {
  const [failed, setFailed] = useState<string | null>(null)
  const address = safeAddress(person?.avatar_url ?? null)
  const name = knownName(person)
  const hasPicture = address !== null && address !== failed
  return (
    <span
      className="rpt-avatar"
      data-slot="avatar"
      data-tone={hasPicture || name ? toneOf(person?.id ?? '') : 'none'}
      data-size={size}
      aria-hidden="true"
    >
      {hasPicture ? (
        <img
          className="rpt-avatar-image"
          referrerPolicy="no-referrer"
          src={address}
          alt=""
          width={size}
          height={size}
          loading="lazy"
          decoding="async"
          onError={() => setFailed(address)}
        />
      ) : name ? (
        <span className="rpt-avatar-initials">{initials(name)}</span>
      ) : (
        <PersonIcon size={Math.round(size * 0.6)} />
      )}
      {presence && <PresenceDot status={presence} />}
    </span>
  )
}
