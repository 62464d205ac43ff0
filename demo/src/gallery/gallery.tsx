import {
  Avatar,
  ChatProvider,
  ConversationsList,
  EmptyState,
  MessageInput,
  Messenger,
  NewChatDialog,
  NotificationSettings,
  PresenceDot,
  PresenceMenu,
  QuickAccess,
  TypingIndicator,
  UnreadBadge,
  UserChatInterface,
  UserSearchInput,
} from '@rapport-chat/react'
import { useMemo, useState, type ReactNode } from 'react'
import { pageOptions } from '../options'
import {
  allStates,
  BEN_CONVERSATION,
  clientWith,
  conversation,
  everyday,
  FakeClient,
  longClient,
  PEOPLE,
  stateWith,
  uploadingClient,
} from './fixtures'

interface State {
  readonly title: string
  readonly height?: number
  /** Adds padding around small components. */
  readonly pad?: boolean
  readonly client: () => FakeClient
  readonly content: () => ReactNode
}

const nothing = (): void => undefined
const networkError = {
  message: 'The server is not reachable.',
  code: 'network' as const,
  status: 0,
  hint: null,
  retryAfter: null,
  requestId: null,
}
const connection = (status: 'offline' | 'reconnecting' | 'signed_out' | 'polling'): FakeClient =>
  clientWith(everyday, { connection: { status, since: 0, downSince: 0, retryAt: null, error: null } })
const plain = (): FakeClient => {
  const client = new FakeClient(stateWith({}))
  client.found = Object.values(PEOPLE).filter(({ id }) => id !== PEOPLE.ana.id)
  return client
}
const chat = (): ReactNode => <UserChatInterface conversationId={BEN_CONVERSATION} />
const list = (filter?: 'unread' | 'archived'): ReactNode => (
  <ConversationsList
    activeConversationId={BEN_CONVERSATION}
    onConversationSelect={nothing}
    onNewConversation={nothing}
    {...(filter && { filter })}
  />
)

const CONVERSATIONS: readonly State[] = [
  { title: 'Everyday', height: 640, client: () => clientWith(everyday), content: chat },
  { title: 'Every state of a message', height: 1500, client: () => clientWith(allStates), content: chat },
  {
    title: 'Unread line, typing',
    height: 640,
    client: () => clientWith(everyday, { typing: { [BEN_CONVERSATION]: [PEOPLE.ben.id] } }, { firstUnreadSeq: 9 }),
    content: chat,
  },
  { title: 'Loading', height: 480, client: () => clientWith([], {}, { status: 'loading' }), content: chat },
  { title: 'Empty', height: 480, client: () => clientWith([]), content: chat },
  {
    title: 'Could not load',
    height: 480,
    client: () => clientWith([], {}, { status: 'error', error: networkError }),
    content: chat,
  },
  { title: 'Not found', height: 480, client: () => clientWith([], {}, { status: 'not_found' }), content: chat },
  {
    title: 'Cannot be messaged',
    height: 480,
    client: () => clientWith(everyday, { conversations: [conversation(PEOPLE.ben, { can_send: false })] }),
    content: chat,
  },
  {
    title: 'Blocked by oneself',
    height: 480,
    client: () => {
      const client = clientWith(everyday, { conversations: [conversation(PEOPLE.ben, { can_send: false })] })
      client.blocked = [PEOPLE.ben.id]
      return client
    },
    content: chat,
  },
  { title: 'Files on their way', height: 640, client: uploadingClient, content: chat },
  { title: 'Offline', height: 480, client: () => connection('offline'), content: chat },
  { title: 'Reconnecting', height: 480, client: () => connection('reconnecting'), content: chat },
  { title: 'Session ended', height: 480, client: () => connection('signed_out'), content: chat },
  {
    title: 'Older page failed',
    height: 480,
    client: () => clientWith(everyday.slice(0, 4), {}, { hasOlder: true, pageError: networkError }),
    content: chat,
  },
]

const LISTS: readonly State[] = [
  { title: 'Every state of an item', height: 720, client: plain, content: () => list() },
  {
    title: 'Compact',
    height: 720,
    client: plain,
    content: () => (
      <ConversationsList
        activeConversationId={null}
        density="compact"
        onConversationSelect={nothing}
        onNewConversation={nothing}
      />
    ),
  },
  {
    title: 'Loading',
    height: 480,
    client: () => new FakeClient(stateWith({ conversations: [], conversationsStatus: 'loading' })),
    content: () => list(),
  },
  {
    title: 'Empty',
    height: 480,
    client: () => new FakeClient(stateWith({ conversations: [] })),
    content: () => list(),
  },
  {
    title: 'Nothing unread',
    height: 480,
    client: () => new FakeClient(stateWith({ conversations: [] })),
    content: () => list('unread'),
  },
  {
    title: 'Nothing archived',
    height: 480,
    client: () => new FakeClient(stateWith({ conversations: [] })),
    content: () => list('archived'),
  },
  {
    title: 'Could not load',
    height: 480,
    client: () =>
      new FakeClient(stateWith({ conversations: [], conversationsStatus: 'error', conversationsError: networkError })),
    content: () => list(),
  },
]

const LONG = 'A text that is over the limit of the server. '.repeat(92)
const COMPOSERS: readonly State[] = [
  {
    title: 'Empty',
    pad: true,
    client: plain,
    content: () => <MessageInput onSendMessage={nothing} label="Message, empty" />,
  },
  {
    title: 'With text',
    pad: true,
    client: plain,
    content: () => (
      <MessageInput
        onSendMessage={nothing}
        value={'Two lines\nof text'}
        onChange={nothing}
        label="Message, with text"
      />
    ),
  },
  {
    title: 'Reply',
    pad: true,
    client: plain,
    content: () => (
      <MessageInput
        onSendMessage={nothing}
        strip={{
          kind: 'reply',
          title: 'Reply to Ben Olsen',
          text: 'Sure, 12:30 at the usual place? I can also be there earlier if that suits you better',
        }}
        label="Message, reply"
      />
    ),
  },
  {
    title: 'Edit, with files',
    pad: true,
    client: plain,
    content: () => (
      <MessageInput
        onSendMessage={nothing}
        onFileUpload={nothing}
        value="See you there"
        onChange={nothing}
        strip={{ kind: 'edit', title: 'Edit message', text: 'See you there' }}
        label="Message, edit"
      />
    ),
  },
  {
    title: 'Too long',
    pad: true,
    client: plain,
    content: () => <MessageInput onSendMessage={nothing} value={LONG} onChange={nothing} label="Message, too long" />,
  },
  {
    title: 'Disabled',
    pad: true,
    client: plain,
    content: () => <MessageInput onSendMessage={nothing} disabled label="Message, disabled" />,
  },
]

const PARTS: readonly State[] = [
  {
    title: 'Avatars, presence, badges',
    pad: true,
    client: plain,
    content: () => (
      <>
        <div className="gallery-row">
          {Object.values(PEOPLE).map((person, index) => (
            <Avatar
              key={person.id}
              person={person}
              size={index === 0 ? 64 : 40}
              presence={(['online', 'online', 'away', 'busy', 'offline'] as const)[index]}
            />
          ))}
        </div>
        <div className="gallery-row rpt">
          {(['online', 'away', 'busy', 'offline'] as const).map((status) => (
            <PresenceDot key={status} status={status} isLabelled />
          ))}
          <UnreadBadge count={1} />
          <UnreadBadge count={42} />
          <UnreadBadge count={140} />
          <UnreadBadge count={7} isMuted />
          <UnreadBadge count={3} isDot />
        </div>
      </>
    ),
  },
  {
    title: 'Typing',
    pad: true,
    client: plain,
    content: () => <TypingIndicator typingUsers={['x']} userNames={['Ben']} />,
  },
  {
    title: 'Find people',
    height: 420,
    pad: true,
    client: plain,
    content: () => <UserSearchInput onSelect={nothing} recents={Object.values(PEOPLE).slice(1)} />,
  },
  {
    title: 'Navigation',
    pad: true,
    client: plain,
    content: () => (
      <div className="gallery-row">
        <QuickAccess onOpen={nothing} onNewConversation={nothing} />
        <PresenceMenu />
      </div>
    ),
  },
  { title: 'Settings', pad: true, client: plain, content: () => <NotificationSettings /> },
  ...(['no-selection', 'no-conversations', 'no-results', 'not-found', 'error'] as const).map((variant) => ({
    title: `Nothing: ${variant}`,
    height: 360,
    client: plain,
    content: () => <EmptyState variant={variant} action={{ label: 'New message', onClick: nothing }} />,
  })),
]

const SECTIONS = { Conversations: CONVERSATIONS, Lists: LISTS, Composers: COMPOSERS, Parts: PARTS }

/**
 * Shows every component in every state. `?only=` shows one view on the whole page (`long`, with
 * 10,000 messages, `messenger`, `states` or `new-message`) or only one section, by its name in
 * lower case.
 */
export function Gallery(): ReactNode {
  const only = new URLSearchParams(location.search).get('only')
  if (only === 'long') return <Whole client={longClient} content={chat()} />
  if (only === 'messenger') return <Whole client={() => clientWith(everyday)} content={<Messenger />} />
  if (only === 'states') return <Whole client={() => clientWith(allStates)} content={chat()} />
  if (only === 'new-message') return <Whole client={plain} content={<NewMessage />} />
  return (
    <main className="gallery">
      <h1>Gallery</h1>
      <p className="gallery-links">
        {[
          '?theme=light',
          '?theme=dark',
          '?lang=ar',
          '?lang=de',
          '?only=long',
          '?only=messenger',
          '?only=new-message',
        ].map((address) => (
          <a key={address} href={address}>
            {address.slice(1).replace('=', ': ')}
          </a>
        ))}
      </p>
      {Object.entries(SECTIONS)
        .filter(([name]) => !only || only === name.toLowerCase())
        .map(([name, states]) => (
          <section key={name} aria-label={name}>
            <h2>{name}</h2>
            <div className="gallery-grid">
              {states.map((state) => (
                <StateBox key={state.title} {...state} />
              ))}
            </div>
          </section>
        ))}
    </main>
  )
}

function StateBox({ title, height, pad = false, client, content }: State): ReactNode {
  return (
    <article className="gallery-state">
      <h3>{title}</h3>
      <div
        className="gallery-body"
        data-pad={pad || undefined}
        style={height ? { blockSize: height, flex: 'none' } : undefined}
      >
        <Provided client={client}>{content()}</Provided>
      </div>
    </article>
  )
}

function Whole({ client, content }: { client: () => FakeClient; content: ReactNode }): ReactNode {
  return (
    <main className="gallery-one">
      <Provided client={client}>{content}</Provided>
    </main>
  )
}

function Provided({ client, children }: { client: () => FakeClient; children: ReactNode }): ReactNode {
  const { theme, strings } = pageOptions()
  const [made] = useState(client)
  return useMemo(
    () => (
      <ChatProvider client={made} theme={theme} strings={strings} emojiDataUrl={`${import.meta.env.BASE_URL}emoji`}>
        {children}
      </ChatProvider>
    ),
    [made, theme, strings, children],
  )
}

function NewMessage(): ReactNode {
  const [isOpen, setOpen] = useState(true)
  return (
    <>
      <Messenger />
      <NewChatDialog isOpen={isOpen} onClose={() => setOpen(false)} onCreateConversation={nothing} />
    </>
  )
}
