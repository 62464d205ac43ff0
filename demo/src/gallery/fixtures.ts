import type { ChatState, Conversation, Person, Presence, TimelineMessage } from '@rapport-chat/client'
import {
  conversation,
  FakeClient,
  initialState,
  message,
  PEOPLE,
  PREFERENCES,
  timeline,
} from '../../../packages/react/src/testing/fake-client'
import { uploadsOf } from '../../../packages/react/src/uploads/uploads'

export { conversation, FakeClient, initialState, message, PEOPLE, timeline }

const { ana, ben, chloe, mona, max } = PEOPLE

/**
 * Returns the time this many minutes ago, so that the gallery shows today, yesterday and older
 * days.
 */
export function ago(minutes: number): string {
  return new Date(Date.now() - minutes * 60_000).toISOString()
}

const DAY = 24 * 60

export const presence = (status: Presence['status'], rest: Partial<Presence> = {}): Presence => ({
  status,
  last_seen: ago(35),
  status_text: null,
  status_emoji: null,
  manual_status: null,
  manual_until: null,
  ...rest,
})

const WITH_BEN = conversation(ben).id

type Line = readonly [sender: Person, minutesAgo: number, text: string, rest?: Partial<TimelineMessage>]

export function lines(conversationId: string, all: readonly Line[]): TimelineMessage[] {
  return all.map(([sender, minutes, text, rest], index) =>
    message(conversationId, sender, text, {
      created_at: ago(minutes),
      seq: index + 1,
      ...(sender.id === ana.id && { state: 'read' as const }),
      ...rest,
    }),
  )
}

const quoted = (sender: Person, content: string, rest = {}): NonNullable<TimelineMessage['reply_to']> => ({
  id: '10000000-0000-4000-8000-00000000ffff',
  sender_id: sender.id,
  content,
  message_type: 'text',
  file_name: null,
  is_deleted: false,
  created_at: ago(60),
  ...rest,
})

const reaction = (
  emoji: string,
  count: number,
  me: boolean,
  people: readonly Person[],
): TimelineMessage['reactions'][number] => ({ emoji, reaction: emoji, count, me, user_ids: people.map(({ id }) => id) })

/** A picture as a `data:` URL, which needs no request. */
const PICTURE = `data:image/svg+xml,${encodeURIComponent('<svg xmlns="http://www.w3.org/2000/svg" width="640" height="400"><defs><linearGradient id="g" x1="0" y1="0" x2="1" y2="1"><stop stop-color="#8fb4ff"/><stop offset="1" stop-color="#f6b0c4"/></linearGradient></defs><rect width="640" height="400" fill="url(#g)"/><path d="M0 330 190 180l130 110 90-70 230 170v10H0Z" fill="#2a4b8d" opacity=".7"/></svg>')}`

// The generated type of `metadata` is an object without fields.
const SIZE = { width: 640, height: 400 } as unknown as TimelineMessage['metadata']

export const everyday: readonly Line[] = [
  [ben, 2 * DAY + 30, 'Morning! Did the import of the customer list finish over the weekend?'],
  [ana, 2 * DAY + 28, 'Yes, all 48,213 rows. Three were refused because of a missing email address.'],
  [ana, 2 * DAY + 27, 'I put them into a sheet for you.'],
  [ben, 2 * DAY + 20, 'Perfect, thank you 🙏', { reactions: [reaction('👍', 1, true, [ana])] }],
  [ben, DAY + 200, 'One more thing: the quarterly report. Who has the numbers for support?'],
  [
    ana,
    DAY + 190,
    'I do. They are at https://reports.example.com/q3/support?view=summary, and the query is `select count(*) from tickets`.',
  ],
  [ben, DAY + 185, 'Great. I will add them to the deck tonight.', { is_edited: true }],
  [ana, 95, 'Are we still on for lunch?'],
  [ben, 93, 'Sure, 12:30 at the usual place?', { reply_to: quoted(ana, 'Are we still on for lunch?') }],
  [ana, 92, '🎉', { reactions: [reaction('❤️', 1, false, [ben]), reaction('😂', 2, true, [ana, ben])] }],
  [ana, 91, 'See you there. I will bring the printed plan, so that we can draw on it.'],
  [ben, 12, 'I am here already, table at the window'],
]

export const allStates: readonly Line[] = [
  [ben, 40, 'A first message of a group'],
  [ben, 40, 'The middle of it, somewhat longer, so that it takes two lines in a bubble of ordinary width'],
  [ben, 39, 'The last of it'],
  [ana, 30, 'Read', { state: 'read' }],
  [ana, 24, 'Delivered', { state: 'delivered' }],
  [ana, 18, 'Sent', { state: 'sent' }],
  [
    ben,
    17,
    'Edited, with an address: www.example.com/a/rather/long/path?and=parameters. And mail to help@example.com',
    { is_edited: true, is_pinned: true },
  ],
  [ana, 16, '', { is_deleted: true, content: '' }],
  [ben, 15, '', { is_deleted: true, content: '' }],
  [ben, 14, 'A reply to something that is gone', { reply_to: quoted(ana, '', { is_deleted: true }) }],
  [
    ana,
    13,
    'A reply to a long message',
    {
      reply_to: quoted(
        ben,
        'This text is long enough that it has to be cut off at the end of its only line in the quote',
      ),
    },
  ],
  [ben, 12, 'مرحبا بك في الفريق! Welcome, and good luck 🍀'],
  [
    ben,
    11,
    'Everyone agrees',
    {
      reactions: [
        reaction('👍', 12, true, [ana, ben]),
        reaction('🎉', 3, false, [ben]),
        reaction('😮', 1, false, [ben]),
        reaction('❤️', 128, false, [ben]),
      ],
    },
  ],
  [
    ben,
    10,
    'Look at this view',
    { message_type: 'image', file_name: 'mountains.jpg', file_url: `blob:`, metadata: SIZE },
  ],
  [
    ana,
    9,
    '',
    {
      message_type: 'file',
      file_name: 'quarterly-report-third-quarter-2026-final-version.pdf',
      file_size: 2_483_112,
      file_url: '/report.pdf',
    },
  ],
  [ben, 8, '😂🎉👍'],
  [ana, 7, 'supercalifragilisticexpialidocious'.repeat(4)],
  [ana, 6, Array.from({ length: 18 }, (_, i) => `${i + 1}. A line of a long list`).join('\n')],
  [
    ana,
    2,
    'This one was refused',
    {
      state: 'failed',
      seq: Number.POSITIVE_INFINITY,
      canRetry: true,
      error: {
        message: 'The server is not reachable.',
        code: 'network',
        status: 0,
        hint: null,
        retryAfter: null,
        requestId: null,
      },
    },
  ],
  [ana, 1, 'Sending', { state: 'sending', seq: Number.POSITIVE_INFINITY }],
  [ana, 0, 'Waiting', { state: 'pending', seq: Number.POSITIVE_INFINITY }],
]

function withPicture(messages: TimelineMessage[]): TimelineMessage[] {
  return messages.map((one) => (one.message_type === 'image' ? { ...one, file_url: picture() } : one))
}

let blob = ''
/** Returns the picture as a blob URL, because messages do not load files with a `data:` URL. */
function picture(): string {
  blob ||= URL.createObjectURL(
    new Blob([decodeURIComponent(PICTURE.slice(PICTURE.indexOf(',') + 1))], { type: 'image/svg+xml' }),
  )
  return blob
}

function preview(sender: Person, content: string, rest = {}): NonNullable<Conversation['last_message']> {
  return { ...quoted(sender, content), ...rest }
}

export function manyConversations(): Conversation[] {
  return [
    conversation(ben, {
      is_pinned: true,
      last_message: preview(ben, 'I am here already, table at the window'),
      last_message_at: ago(12),
      unread_count: 2,
      last_seq: 12,
    }),
    conversation(chloe, {
      last_message: preview(ana, 'I will send it tomorrow'),
      last_message_at: ago(47),
      last_seq: 4,
      peer_last_read_seq: 4,
      peer_last_delivered_seq: 4,
    }),
    conversation(mona, {
      last_message: preview(mona, 'شكرا جزيلا على المساعدة'),
      last_message_at: ago(190),
      unread_count: 140,
    }),
    conversation(max, {
      last_message: preview(max, 'The contract has been countersigned; you will find the scan in the folder'),
      last_message_at: ago(DAY + 60),
    }),
    conversation(
      { ...ben, id: '00000000-0000-4000-8000-0000000000f1', full_name: 'Nora Lindqvist' },
      {
        is_muted: true,
        last_message: preview(ben, 'Build 4812 is green'),
        last_message_at: ago(DAY + 400),
        unread_count: 7,
      },
    ),
    conversation(
      { ...ben, id: '00000000-0000-4000-8000-0000000000f2', full_name: 'Tomás Ortega' },
      {
        draft: 'About the contract: I think',
        last_message: preview(ben, 'What do you think?'),
        last_message_at: ago(2 * DAY),
      },
    ),
    conversation(
      { ...ben, id: '00000000-0000-4000-8000-0000000000f3', full_name: 'Yuki Tanaka' },
      { marked_unread: true, last_message: preview(ana, '', { is_deleted: true }), last_message_at: ago(3 * DAY) },
    ),
    conversation(
      { ...ben, id: '00000000-0000-4000-8000-0000000000f4', full_name: 'Grace Okafor' },
      {
        last_message: preview(ben, '', { message_type: 'file', file_name: 'invoice-2026-10.pdf' }),
        last_message_at: ago(12 * DAY),
      },
    ),
    conversation(
      { ...ben, id: '00000000-0000-4000-8000-0000000000f5', full_name: null as unknown as string },
      { last_message: null, last_message_at: ago(400 * DAY) },
    ),
  ]
}

const everyonesPresence = {
  [ana.id]: presence('online'),
  [ben.id]: presence('online'),
  [chloe.id]: presence('away'),
  [mona.id]: presence('busy', { status_text: 'In a meeting', status_emoji: '📅' }),
  [max.id]: presence('offline'),
}

export function stateWith(rest: Partial<ChatState>): ChatState {
  return initialState({
    conversations: manyConversations(),
    presence: everyonesPresence,
    preferences: PREFERENCES,
    unread: { total: 142, mentions: 0, byConversation: {} },
    ...rest,
  })
}

/** Creates a client whose conversation with Ben contains these lines. */
export function clientWith(all: readonly Line[], rest: Partial<ChatState> = {}, timelineRest = {}): FakeClient {
  const messages = withPicture(lines(WITH_BEN, all))
  return new FakeClient(stateWith({ timelines: { [WITH_BEN]: timeline(WITH_BEN, messages, timelineRest) }, ...rest }))
}

export const BEN_CONVERSATION = WITH_BEN

/** Creates a client with three uploads: a document and a picture in progress, and a failed one. */
export function uploadingClient(): FakeClient {
  const client = clientWith(everyday.slice(-3))
  const uploads = uploadsOf(client, client.conversation(WITH_BEN))
  const never = new Promise<never>(() => undefined)
  uploads.add(new File([new Uint8Array(2_483_112)], 'quarterly-report-2026.pdf'), (_, { onProgress }) => {
    onProgress(0.6)
    return never
  })
  const svg = decodeURIComponent(PICTURE.slice(PICTURE.indexOf(',') + 1))
  uploads.add(new File([svg], 'mountains.svg', { type: 'image/svg+xml' }), (_, { onProgress }) => {
    onProgress(0.25)
    return never
  })
  uploads.add(new File(['x'], 'notes.txt'), async () => {
    throw new Error('The storage is full.')
  })
  return client
}

/**
 * Creates a client with 10,000 messages of different lengths. The list loads older pages on demand.
 * Tests use `window.gallery` to receive messages and to jump.
 */
export function longClient(): FakeClient {
  const all = Array.from({ length: 10_000 }, (_, i) =>
    message(WITH_BEN, i % 7 < 4 ? ben : ana, `${i + 1}. ${'Some words of a message. '.repeat(1 + ((i * 7919) % 9))}`, {
      id: `msg-${i + 1}`,
      key: `msg-${i + 1}`,
      seq: i + 1,
      created_at: ago((10_000 - i) * 3),
      state: 'read',
    }),
  )
  let from = all.length - 50
  const client = new FakeClient(
    stateWith({ timelines: { [WITH_BEN]: timeline(WITH_BEN, all.slice(from), { hasOlder: true }) } }),
  )
  client.onLoadOlder = async () => {
    from = Math.max(0, from - 50)
    client.conversation(WITH_BEN).change({ messages: all.slice(from), hasOlder: from > 0 })
  }
  Object.assign(window, {
    gallery: {
      client,
      receive(text: string) {
        const one = client.conversation(WITH_BEN)
        const { messages } = one.getTimeline()
        const seq = (messages.at(-1)?.seq ?? 0) + 1
        one.change({
          messages: [...messages, message(WITH_BEN, ben, text, { id: `msg-${seq}`, key: `msg-${seq}`, seq })],
        })
      },
      jumpTo: (id: string) => client.conversation(WITH_BEN).jumpTo(id),
    },
  })
  return client
}
