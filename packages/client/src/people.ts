// Users and their presence, merged from the rows of different routes and of the socket.

import { haveSameFields } from './same'
import type { ChatState, Person, Presence } from './types'
import type * as wire from './wire'

export interface PersonRow {
  id: string
  full_name?: string | null
  avatar_url?: string | null
  email?: string | null
  role?: wire.Contact['role'] | null
  team_id?: string | null
}

/** Merges a row into a user. Fields that the row lacks keep their known values. */
function mergePerson(before: Person | undefined, row: PersonRow): Person {
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

const OFFLINE: Presence = {
  status: 'offline',
  last_seen: null,
  status_text: null,
  status_emoji: null,
  manual_status: null,
  manual_until: null,
}

/**
 * Merges a row of the table `user_presence`, of `GET /presence`, or of a list that contains only
 * the status.
 */
function mergePresence(before: Presence | undefined, row: Partial<wire.Presence>): Presence {
  const known = (Object.keys(OFFLINE) as (keyof Presence)[]).filter((name) => row[name] !== undefined)
  return unlessEqual(before, { ...OFFLINE, ...before, ...Object.fromEntries(known.map((name) => [name, row[name]])) })
}

/** Returns `before` if all fields are the same, so that it can be compared by identity. */
function unlessEqual<T extends object>(before: T | undefined, next: T): T {
  return before && haveSameFields(next, before) ? before : next
}

/** All known users and their presence. */
export class People {
  readonly #onChange: () => void
  readonly byId = new Map<string, Person>()
  readonly #presence = new Map<string, Presence>()

  constructor(onChange: () => void) {
    this.#onChange = onChange
  }

  /** Adds or updates a user. Returns whether anything changed. */
  put(row: PersonRow): boolean {
    const before = this.byId.get(row.id)
    const person = mergePerson(before, row)
    if (person === before) return false
    this.byId.set(row.id, person)
    this.#onChange()
    return true
  }

  putPresence(userId: string, row: Partial<wire.Presence>): void {
    const before = this.#presence.get(userId)
    const presence = mergePresence(before, row)
    if (presence === before) return
    this.#presence.set(userId, presence)
    this.#onChange()
  }

  /**
   * Stores the status that a conversation's row contains, if the user's presence is not known yet.
   * This status can be outdated, because rows are kept and merged as long as the page is open.
   */
  suggestPresence(userId: string, row: Partial<wire.Presence>): void {
    if (!this.#presence.has(userId)) this.putPresence(userId, row)
  }

  /** Forgets all users without calling `onChange`. The next `put` calls it. */
  clear(): void {
    this.byId.clear()
    this.#presence.clear()
  }

  /** Builds a snapshot. Not called for each change, because a first load causes hundreds. */
  snapshot(): Pick<ChatState, 'people' | 'presence'> {
    return { people: Object.fromEntries(this.byId), presence: Object.fromEntries(this.#presence) }
  }
}
