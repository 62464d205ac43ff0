import { Avatar } from '@rapport-chat/react'
import type { ReactNode } from 'react'
import type { DemoPerson } from './session'

/** Lets the visitor choose a user, or two users side by side to see both ends of a conversation. */
export function Chooser({ people }: { people: readonly DemoPerson[] }): ReactNode {
  return (
    <main className="demo-chooser">
      <h1>Rapport</h1>
      <p>A chat on this server, with five people. Choose who you want to be.</p>
      <a className="demo-both" href="?as=ana,ben">
        <span className="demo-both-avatars">
          {people.slice(0, 2).map((person) => (
            <Avatar key={person.id} person={{ ...person, full_name: person.name }} size={40} />
          ))}
        </span>
        <span>
          <strong>Ana and Ben, side by side</strong>
          <small>Write on the left, watch it arrive on the right</small>
        </span>
      </a>
      <ul>
        {people.map((person) => (
          <li key={person.id}>
            <a href={`?as=${person.email.split('@')[0]}`}>
              <Avatar person={{ ...person, full_name: person.name }} size={40} />
              <span>
                <strong>{person.name}</strong>
                <small>{describe(person)}</small>
              </span>
            </a>
          </li>
        ))}
      </ul>
      <p className="demo-links">
        <a href="gallery/">Gallery of all components</a> · <a href="../docs">Routes</a> ·{' '}
        <a href="licenses.txt">Licences</a>
      </p>
    </main>
  )
}

function describe({ role, team, team_name, email }: DemoPerson): string {
  const roles: Record<string, string> = { admin: 'Admin', super_admin: 'Super admin', user: 'User' }
  const parts = [role && (roles[role] ?? role), team_name ?? team].filter(Boolean)
  return parts.length > 0 ? parts.join(', ') : email
}
