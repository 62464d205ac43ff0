// Users and their presence, as rows of different routes describe them.

import type { Person, Presence } from './types'
import type * as wire from './wire'

export interface PersonRow {
  id: string
  full_name?: string | null
  avatar_url?: string | null
  email?: string | null
  role?: wire.Contact['role'] | null
  team_id?: string | null
}

/** Adds what a row knows. Rows know different fields, so known ones are kept. */
export function mergePerson(before: Person | undefined, row: PersonRow): Person {
  const { id, full_name, avatar_url, email, team_id } = row
  const role = row.role ?? before?.role
  return unlessEqual(before, {
    id,
    full_name: full_name ?? before?.full_name ?? null,
    avatar_url: avatar_url ?? before?.avatar_url ?? null,
    email: email ?? before?.email ?? null,
    team_id: team_id ?? before?.team_id ?? null,
    ...(role && { role }),
  })
}

const OFFLINE: Presence = { status: 'offline', last_seen: null, status_text: null, status_emoji: null, manual_status: null, manual_until: null }

/** From a row of the table, of `GET /presence`, or of a list that shows only the status. */
export function mergePresence(before: Presence | undefined, row: Partial<wire.Presence>): Presence {
  const known = (Object.keys(OFFLINE) as (keyof Presence)[]).filter((name) => row[name] !== undefined)
  return unlessEqual(before, { ...OFFLINE, ...before, ...Object.fromEntries(known.map((name) => [name, row[name]])) })
}

/** Returns `before` if all fields are the same, so that it can be compared by identity. */
function unlessEqual<T extends object>(before: T | undefined, next: T): T {
  const isSame = before && (Object.keys(next) as (keyof T)[]).every((name) => next[name] === before[name])
  return isSame ? before : next
}
