import { ChatProvider, Messenger, PresenceMenu, QuickAccess, useUnreadTitle } from '@rapport-chat/react'
import { useEffect, useState, type ReactNode } from 'react'
import { Chooser } from './chooser'
import { clientOf } from './clients'
import { pageOptions } from './options'
import { loadPeople, type DemoPerson, type People } from './session'
import { Settings } from './settings'

/** The address of the emoji data that is built with the page. */
const EMOJI_DATA = `${import.meta.env.BASE_URL}emoji`

/**
 * `/demo/` lets the visitor choose a user. `?as=ana` opens the chat of one user, and `?as=ana,ben`
 * opens two chats side by side. `c` and `m` contain the ids of the open conversation and of a
 * message in it.
 */
export function App(): ReactNode {
  const [people, setPeople] = useState<People | null>(null)
  const [error, setError] = useState<string | null>(null)
  useEffect(() => {
    loadPeople().then(
      (loaded) => {
        for (const person of chosenOf(loaded)) clientOf(loaded, person)
        setPeople(loaded)
      },
      (reason: unknown) => setError(String(reason)),
    )
  }, [])

  if (error) return <p className="demo-error" role="alert">{`The server did not answer. ${error}`}</p>
  if (!people) return null
  const chosen = chosenOf(people)
  const [first, second] = chosen
  if (!first) return <Chooser people={people.people} />
  return (
    <main className="demo-panes" data-count={chosen.length}>
      <Pane people={people} person={first} isMain />
      {second && <Pane people={people} person={second} isMain={false} />}
    </main>
  )
}

/** Returns the users that the address names, at most two, because two chats fit side by side. */
function chosenOf({ people }: People): readonly DemoPerson[] {
  const names = new URLSearchParams(location.search).get('as')?.split(',') ?? []
  return names.flatMap((name) => people.filter((person) => person.email.startsWith(`${name}@`))).slice(0, 2)
}

function Pane({ people, person, isMain }: { people: People; person: DemoPerson; isMain: boolean }): ReactNode {
  const { theme, strings } = pageOptions()
  return (
    <section className="demo-pane" data-person={person.email.split('@')[0]} aria-label={person.name}>
      <ChatProvider client={clientOf(people, person)} theme={theme} strings={strings} emojiDataUrl={EMOJI_DATA}>
        <View person={person} isMain={isMain} />
      </ChatProvider>
    </section>
  )
}

interface Place {
  readonly conversationId: string | null
  readonly messageId?: string | undefined
}

/** Reads the open conversation from the address. Only the first pane has its state there. */
function placeOf(isMain: boolean): Place {
  if (!isMain) return { conversationId: null }
  const parameters = new URLSearchParams(location.search)
  return { conversationId: parameters.get('c'), messageId: parameters.get('m') ?? undefined }
}

function View({ person, isMain }: { person: DemoPerson; isMain: boolean }): ReactNode {
  const [place, setPlace] = useState<Place>(() => placeOf(isMain))
  useEffect(() => {
    if (!isMain) return
    const back = (): void => setPlace(placeOf(true))
    addEventListener('popstate', back)
    return () => removeEventListener('popstate', back)
  }, [isMain])

  const open = (conversationId: string | null, messageId?: string): void => {
    setPlace({ conversationId, messageId })
    if (!isMain) return
    const address = new URL(location.href)
    address.searchParams.delete('m')
    if (conversationId) address.searchParams.set('c', conversationId)
    else address.searchParams.delete('c')
    if (messageId) address.searchParams.set('m', messageId)
    history.pushState(null, '', address)
  }
  return (
    <>
      {isMain && <Title />}
      <header className="demo-bar">
        <a className="demo-home" href={import.meta.env.BASE_URL} title="Choose another person">
          Rapport
        </a>
        <span className="demo-name">{person.name}</span>
        <QuickAccess onOpen={(id) => open(id)} />
        <Settings />
        <PresenceMenu />
      </header>
      <div className="demo-content">
        <Messenger
          conversationId={place.conversationId}
          onOpen={open}
          {...(place.messageId && { messageId: place.messageId })}
        />
      </div>
    </>
  )
}

function Title(): ReactNode {
  useUnreadTitle()
  return null
}
