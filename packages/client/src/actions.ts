// The user's actions on conversations, messages and settings, and the code that only displayed
// conversations need. This module is loaded later than the rest of the client: when the first
// conversation is displayed, or when an action is first used.

import type { ReportReason, UserChatAPI } from './api'
import type { Engine } from './engine'
import { chatError, ok, refused } from './errors'
import { withReaction, type Change } from './overlay'
import { countUnread } from './paging'
import type { ChangeKind, ChatError, Conversation, Person, Preferences, PresenceStatus, Result } from './types'
import { readerOf } from './reading'
import { TypingReporter } from './typing-reporter'
import { Wishes } from './wishes'
import type * as wire from './wire'

export { jumpTo, jumpToNewest, loadBeside, loadFirst } from './paging'
export { show } from './reading'
export { openRecent } from './recent'

const allWishes = new WeakMap<Engine, Wishes>()

function wishesOf(engine: Engine): Wishes {
  const wishes = allWishes.get(engine) ?? new Wishes()
  allWishes.set(engine, wishes)
  return wishes
}

/**
 * Shows a change at once and requests it from the server. The change is shown until the rows in the
 * store contain it, or until the request fails.
 */
async function change(
  engine: Engine,
  kind: ChangeKind,
  /**
   * Where the changed row comes from: the response (`answer`; `request` must store it), or the next
   * `/sync`.
   */
  confirmedBy: 'answer' | 'sync',
  shown: Change & { conversationId: string },
  request: () => Promise<Result<unknown>>,
): Promise<Result<null>> {
  const undo = engine.store.overlay.add(shown)
  const { error } = await request()
  if (error) {
    undo()
    reportFailure(engine, kind, error, shown)
    return refused(error)
  }
  if (confirmedBy === 'sync') await engine.syncNow()
  undo()
  return ok(null)
}

/** Emits `change_failed`, so that one listener can show the failures of all changes. */
function reportFailure(
  engine: Engine,
  change: ChangeKind,
  error: ChatError,
  { conversationId = null, messageId = null }: { conversationId?: string | null; messageId?: string | null } = {},
): void {
  if (error.code !== 'aborted') engine.emit({ type: 'change_failed', change, conversationId, messageId, error })
}

// Conversations

export async function findConversation(engine: Engine, personId: string): Promise<Result<Conversation | null>> {
  const held = engine.store
    .getState()
    .conversations.find(({ kind, other_user }) => kind === 'direct' && other_user?.id === personId)
  if (held) return ok(held)
  const { data, error } = await engine.api.openConversation(personId, { preventCreation: true })
  if (error?.status === 404) return ok(null)
  return error ? refused(error) : ok(known(engine, data))
}

export async function openConversation(engine: Engine, personId: string): Promise<Result<Conversation>> {
  const { data, error } = await engine.api.openConversation(personId)
  return error ? refused(error) : ok(known(engine, data))
}

function known(engine: Engine, row: Conversation): Conversation {
  engine.store.putConversation(row)
  return engine.store.getState().conversations.find(({ id }) => id === row.id) ?? row
}

export function archive(engine: Engine, conversationId: string, isArchived: boolean): Promise<Result<null>> {
  return set(engine, 'archive', conversationId, isArchived, { is_archived: isArchived }, (value) => ({
    isArchived: value,
  }))
}

export function pin(engine: Engine, conversationId: string, isPinned: boolean): Promise<Result<null>> {
  return set(engine, 'pin', conversationId, isPinned, { is_pinned: isPinned }, (value) => ({ isPinned: value }))
}

export function mute(
  engine: Engine,
  conversationId: string,
  isMuted: boolean,
  until: string | null = null,
): Promise<Result<null>> {
  const shown = { is_muted: isMuted, muted_until: isMuted ? until : null }
  return set(engine, 'mute', conversationId, isMuted, shown, (value) => ({
    isMuted: value,
    ...(value && { mutedUntil: until }),
  }))
}

function set(
  engine: Engine,
  kind: 'archive' | 'pin' | 'mute',
  conversationId: string,
  value: boolean,
  shown: Partial<Conversation>,
  settings: (value: boolean) => Parameters<UserChatAPI['updateConversation']>[1],
): Promise<Result<null>> {
  return change(engine, kind, 'sync', { conversationId, onConversation: (row) => ({ ...row, ...shown }) }, () =>
    wishesOf(engine).wish(`${kind} ${conversationId}`, value, (wanted) =>
      engine.api.updateConversation(conversationId, settings(wanted)),
    ),
  )
}

/** The change is shown only after the server has confirmed it, because it cannot be undone. */
export function clear(engine: Engine, conversationId: string): Promise<Result<null>> {
  return change(engine, 'clear', 'sync', { conversationId }, () => engine.api.clearConversation(conversationId))
}

export async function markAllRead(engine: Engine): Promise<Result<null>> {
  const unread = engine.store
    .getState()
    .conversations.filter(({ unread_count, marked_unread }) => unread_count > 0 || marked_unread)
  // One conversation at a time, because the server limits the rate of these requests.
  for (const { id } of unread) {
    const { error } = await engine.conversation(id).markRead()
    if (error) return refused(error)
  }
  return ok(null)
}

const reporters = new WeakMap<object, TypingReporter>()

/** Reports typing when the text in the composer changes. A blank text ends typing. */
export async function type(engine: Engine, conversation: { id: string }, text: string): Promise<Result<null>> {
  const { api, environment } = engine
  const report = (isTyping: boolean) => void api.setTyping(conversation.id, isTyping)
  const reporter = reporters.get(conversation) ?? new TypingReporter(environment.clock, report)
  reporters.set(conversation, reporter)
  reporter.input(text)
  return ok(null)
}

export async function saveDraft(engine: Engine, conversationId: string, text: string): Promise<Result<null>> {
  const { api, store } = engine
  const { error } = await api.updateConversation(conversationId, { draft: text })
  if (error) return refused(error)
  const row = store.row(conversationId)
  if (row) store.putConversation({ ...row, draft: text === '' ? null : text })
  return ok(null)
}

/** Marks everything up to this position as read or, without a position, all messages. */
export async function markRead(engine: Engine, conversationId: string, upTo?: number): Promise<Result<null>> {
  const { api, store, options } = engine
  const history = store.history(conversationId)
  const isAll = upTo === undefined
  // The route takes a message's id. Without an id, it marks all messages, even those that were
  // never displayed.
  const last = isAll ? undefined : history?.within({ from: 0, to: upTo }).at(-1)
  if (!isAll && !last) return refused(chatError('aborted', 'The messages are no longer loaded.'))
  const seq = last?.row.seq ?? store.row(conversationId)?.last_seq ?? 0
  const unread = isAll ? 0 : countUnread(history, seq, options.userId)
  const isRead = (row: Conversation, left = row.unread_count): Conversation => ({
    ...row,
    marked_unread: false,
    last_read_seq: Math.max(row.last_read_seq, seq),
    unread_count: Math.min(row.unread_count, left),
  })
  const undo = store.overlay.add({ conversationId, onConversation: (row) => isRead(row, unread) })
  const { data, error } = await api.markConversationRead(conversationId, last?.row.id)
  const row = store.row(conversationId)
  // The response is applied at once. The server's event with the new counts arrives a moment later.
  if (data && row) store.putConversation(isRead(row, data.unread_count))
  undo()
  return error ? refused(error) : ok(null)
}

export function markUnread(engine: Engine, conversationId: string, messageId?: string): Promise<Result<null>> {
  readerOf(engine, engine.conversation(conversationId))?.keepUnread()
  const history = engine.store.history(conversationId)
  const seq = messageId === undefined ? undefined : history?.get(messageId)?.row.seq
  const unread = seq === undefined ? undefined : countUnread(history, seq - 1, engine.options.userId)
  const onConversation = (row: Conversation): Conversation => ({
    ...row,
    marked_unread: true,
    ...(seq !== undefined && { last_read_seq: seq - 1, unread_count: unread ?? row.unread_count }),
  })
  return change(engine, 'mark_unread', 'sync', { conversationId, onConversation }, () =>
    engine.api.markConversationUnread(conversationId, messageId),
  )
}

// Messages

export function edit(
  engine: Engine,
  conversationId: string,
  messageId: string,
  content: string,
): Promise<Result<null>> {
  const { api, store } = engine
  const text = content.trim()
  const keep = (result: Result<wire.Message>): Result<wire.Message> => {
    if (result.data) store.putAnswer(result.data)
    return result
  }
  const onMessage = (message: wire.Message): wire.Message => ({ ...message, content: text, is_edited: true })
  return change(engine, 'edit', 'answer', { conversationId, messageId, onMessage }, async () => {
    const before = store.history(conversationId)?.get(messageId)
    const first = await api.editMessage(messageId, text, before && { rev: before.row.rev })
    if (first.error?.code !== 'stale_revision' || !before) return keep(first)
    // A reaction also changes the revision. Only a different text or a deletion is a conflict.
    const current = keep(await api.getMessage(messageId))
    if (!current.data || current.data.content !== before.row.content || current.data.is_deleted) return first
    return keep(await api.editMessage(messageId, text, { rev: current.data.rev }))
  })
}

export function remove(
  engine: Engine,
  conversationId: string,
  messageId: string,
  { forMe = false }: { forMe?: boolean } = {},
): Promise<Result<null>> {
  const onMessage = (message: wire.Message): wire.Message => ({
    ...message,
    content: '',
    is_deleted: true,
    reactions: [],
    reply_to: null,
  })
  const shown = { conversationId, messageId, ...(forMe ? { hides: true } : { onMessage }) }
  return change(engine, forMe ? 'hide' : 'delete', 'sync', shown, () => engine.api.deleteMessage(messageId, { forMe }))
}

export function react(
  engine: Engine,
  conversationId: string,
  messageId: string,
  reaction: string,
  isOn?: boolean,
): Promise<Result<null>> {
  const { api, store } = engine
  const { userId } = engine.options
  const before = store.getTimeline(conversationId).messages.find(({ id }) => id === messageId)
  const value = isOn ?? !before?.reactions.some((held) => held.reaction === reaction && held.me)
  const onMessage = (message: wire.Message): wire.Message => withReaction(message, reaction, userId, value, true)
  return change(engine, 'react', 'sync', { conversationId, messageId, onMessage }, () =>
    wishesOf(engine).wish(`react ${messageId} ${reaction}`, value, (wanted) =>
      wanted ? api.addReaction(messageId, reaction) : api.removeReaction(messageId, reaction),
    ),
  )
}

export function pinMessage(
  engine: Engine,
  conversationId: string,
  messageId: string,
  isPinned: boolean,
): Promise<Result<null>> {
  const onMessage = (message: wire.Message): wire.Message => ({ ...message, is_pinned: isPinned })
  return change(engine, 'pin_message', 'sync', { conversationId, messageId, onMessage }, () =>
    wishesOf(engine).wish(`pin ${messageId}`, isPinned, (wanted) => engine.api.pin(messageId, wanted)),
  )
}

export async function report(
  engine: Engine,
  messageId: string,
  reason: ReportReason,
  note?: string,
): Promise<Result<null>> {
  const { error } = await engine.api.report(messageId, reason, note)
  return error ? refused(error) : ok(null)
}

// People and settings

export async function searchUsers(
  engine: Engine,
  query: string,
  options?: { signal?: AbortSignal },
): Promise<Result<readonly Person[]>> {
  const { data, error } = await engine.api.searchUsers(query, engine.options.userId, null, options)
  if (error) return refused(error)
  for (const person of data) {
    engine.store.putPerson(person)
    engine.store.putPresence(person.id, { status: person.status })
  }
  return ok(data)
}

export async function setStatus(
  engine: Engine,
  status: PresenceStatus,
  { until, text, emoji }: { until?: string | null; text?: string | null; emoji?: string | null } = {},
): Promise<Result<null>> {
  // With `online`, null ends the status that the user chose. With another status, null
  // means that it has no end.
  const manualUntil = until ?? null
  const { data, error } = await engine.api.setPresence({
    status,
    manualUntil,
    ...(text !== undefined && { statusText: text }),
    ...(emoji !== undefined && { statusEmoji: emoji }),
  })
  if (error) {
    reportFailure(engine, 'presence', error)
    return refused(error)
  }
  engine.store.putPresence(engine.options.userId, data)
  return ok(null)
}

export async function loadPreferences({ api, store }: Engine): Promise<Result<Preferences>> {
  const result = await api.getPreferences()
  if (result.data) store.set({ preferences: result.data })
  return result
}

export async function setPreferences(engine: Engine, wanted: Partial<Preferences>): Promise<Result<Preferences>> {
  const { store } = engine
  const before = store.getState().preferences
  if (before) store.set({ preferences: { ...before, ...wanted } })
  const result = await engine.api.setPreferences(wanted)
  const { data, error } = result
  store.set({ preferences: data ?? before })
  if (error) reportFailure(engine, 'preferences', error)
  return result
}

/** Blocks or unblocks a person. */
export async function block(engine: Engine, personId: string, isBlocked: boolean): Promise<Result<null>> {
  const { api, store } = engine
  const { error } = await (isBlocked ? api.block(personId) : api.unblock(personId))
  if (error) return refused(error)
  const row = store.getState().conversations.find(({ other_user }) => other_user?.id === personId)
  if (!row) return ok(null)
  // The response does not contain `can_send`, so the conversation is fetched.
  const { data } = await api.getConversation(row.id)
  store.putConversation(data ?? { ...row, can_send: !isBlocked })
  return ok(null)
}
