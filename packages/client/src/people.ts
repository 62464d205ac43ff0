// Users and their presence, as rows of different routes describe them.

import type { Person, Presence } from './types'
import type * as wire from './wire'

type Named = { id: string; full_name?: string | null; avatar_url?: string | null; email?: string | null; role?: wire.Contact['role'] | null; team_id?: string | null }

/** Adds what a row knows. Rows know different fields, so known ones are kept. */
export function withPerson(people: Readonly<Record<string, Person>>, row: Named | null | undefined): Readonly<Record<string, Person>> {
  if (!row) return people
  const before = people[row.id]
  const { id, full_name, avatar_url, email, team_id } = row
  const role = row.role ?? before?.role
  const person: Person = {
    id,
    full_name: full_name ?? before?.full_name ?? null,
    avatar_url: avatar_url ?? before?.avatar_url ?? null,
    email: email ?? before?.email ?? null,
    team_id: team_id ?? before?.team_id ?? null,
    ...(role && { role }),
  }
  const isSame = before && (Object.keys(person) as (keyof Person)[]).every((key) => person[key] === before[key])
  return isSame ? people : { ...people, [id]: person }
}

/** Presence from a row of the table, of `GET /presence`, or of a list that shows only the status. */
export function presenceOf(row: Partial<wire.Presence>, before?: Presence): Presence {
  return {
    status: row.status ?? before?.status ?? 'offline',
    last_seen: row.last_seen ?? before?.last_seen ?? null,
    status_text: row.status_text === undefined ? (before?.status_text ?? null) : row.status_text,
    status_emoji: row.status_emoji === undefined ? (before?.status_emoji ?? null) : row.status_emoji,
    manual_status: row.manual_status === undefined ? (before?.manual_status ?? null) : row.manual_status,
    manual_until: row.manual_until === undefined ? (before?.manual_until ?? null) : row.manual_until,
  }
}
