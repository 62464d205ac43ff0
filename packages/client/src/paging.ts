// Loads the pages of a conversation, and chooses the part that is displayed. Loaded with the
// actions.

import type { Conversation } from './conversation-client'
import type { Engine } from './engine'
import { ok, refused } from './errors'
import type { History, LoadedPage } from './history'
import { startReading } from './reading'
import type { Result } from './types'

/** The number of messages in a page. */
const PAGE_SIZE = 50

/** With more unread messages than this, the first page surrounds the first unread one. */
const MAX_UNREAD_AT_END = 30

/** Returns true until the user moves. A page that arrives later is stored, but not displayed. */
type IsWanted = () => boolean

/** Loads the first page, and jumps to a message (`at`) or to the first unread one. */
export async function loadFirst(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
  at?: string,
): Promise<Result<null>> {
  const result = await choosePart(engine, conversation, isWanted, at)
  conversation.isOpening = false
  startReading(engine, conversation)
  return result
}

async function choosePart(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
  at?: string,
): Promise<Result<null>> {
  const history = conversation.loaded
  // Changes are followed from the cursor. A page that is loaded without one could miss changes.
  await engine.positioned.promise
  const row = engine.store.row(conversation.id)
  const unread = row?.unread_count ?? 0
  const lastRead = row?.last_read_seq ?? 0
  let displayed: Result<null> = ok(null)
  if (isWanted()) {
    if (at !== undefined) await jumpTo(engine, conversation, isWanted, at)
    else if (unread > 0) displayed = await displayUnread(engine, conversation, isWanted, lastRead, unread)
  }
  let result: Result<null> = ok(null)
  if (!history.range) result = displayed.error ? displayed : await loadNewest(engine, conversation, isWanted)
  if (!result.error && unread > 0)
    showUnread(engine, conversation, lastRead, at === undefined && !displayed.error && isWanted())
  return result
}

/** Displays the part in which the unread messages begin. Loads it if necessary. */
async function displayUnread(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
  lastRead: number,
  unread: number,
): Promise<Result<null>> {
  const history = conversation.loaded
  const first = lastRead + 1
  const held = countUnread(history, lastRead, engine.options.userId)
  // The count arrives separately from the messages, and can arrive before them.
  const areLate = held !== undefined && held < unread
  if (areLate || !history.rangeAt(first)) {
    const isNearEnd = unread <= MAX_UNREAD_AT_END
    const result = isNearEnd ? await loadNewest(engine, conversation, isWanted) : ok(null)
    if (result.error || (isNearEnd && history.rangeAt(first))) return result
    return loadAround(engine, conversation, isWanted, 'first_unread')
  }
  if (isWanted() && !history.contains(first)) conversation.change((changed) => changed.display(first))
  return ok(null)
}

/**
 * Counts the messages of others after a position, without deleted ones. Returns undefined if not
 * all messages after the position are loaded.
 */
export function countUnread(history: History | undefined, after: number, userId: string): number | undefined {
  const end = history?.rangeAt(Infinity)
  if (!history || !end || end.from > after + 1) return undefined
  return history.within(end).filter(({ row }) => row.seq > after && row.sender_id !== userId && !row.is_deleted).length
}

/** Places the line "New messages" above the first unread message; `isTarget` also jumps to it. */
function showUnread(engine: Engine, conversation: Conversation, lastRead: number, isTarget: boolean): void {
  if (!conversation.isOpen) return
  const { userId } = engine.options
  const first = conversation.loaded.messages.find(
    ({ row }) => row.seq > lastRead && row.sender_id !== userId && !row.is_deleted,
  )
  // If a later part is displayed, its first unread message is not the first of the conversation.
  if (!first || !(isTarget || conversation.loaded.contains(lastRead + 1))) return
  const { seq } = first.row
  conversation.change((history) => (history.firstUnreadSeq = seq))
  if (!isTarget) return
  // The list reports what is visible at the target as soon as it has moved there.
  conversation.visible = null
  conversation.jump({ at: 'first_unread', seq })
}

export async function jumpTo(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
  messageId: string,
): Promise<Result<null>> {
  const seq = conversation.loaded.get(messageId)?.row.seq
  if (seq !== undefined && conversation.loaded.rangeAt(seq)) {
    conversation.change((history) => history.display(seq))
    conversation.jump({ at: 'message', messageId, seq })
    return ok(null)
  }
  const result = await loadAround(engine, conversation, isWanted, messageId)
  if (result.error?.status === 404) {
    engine.emit({ type: 'message_unavailable', conversationId: conversation.id, messageId })
    if (!conversation.loaded.range) await loadNewest(engine, conversation, isWanted)
  }
  return result
}

export async function jumpToNewest(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
): Promise<Result<null>> {
  // The displayed part stays until the end is loaded.
  const isLoaded = conversation.loaded.rangeAt(Infinity) !== undefined
  const result = isLoaded ? ok(null) : await loadNewest(engine, conversation, isWanted)
  if (!result.error && isWanted()) conversation.goToEnd((history) => history.display(Infinity))
  return result
}

async function loadNewest(engine: Engine, conversation: Conversation, isWanted: IsWanted): Promise<Result<null>> {
  const { data, error } = await engine.api.getPage({ conversationId: conversation.id, limit: PAGE_SIZE })
  if (error) return refused(error)
  const page = { messages: data.data, hasOlder: data.has_more, hasNewer: false }
  addPage(engine, conversation, page, isWanted() ? Infinity : null)
  return ok(null)
}

/** Loads the page before or after the displayed part. A failure becomes `Timeline.pageError`. */
export async function loadBeside(
  engine: Engine,
  conversation: Conversation,
  at: 'before' | 'after',
): Promise<Result<null>> {
  const history = conversation.loaded
  const { range, messages } = history
  const isOlder = at === 'before'
  const flag = isOlder ? 'isLoadingOlder' : 'isLoadingNewer'
  const isComplete = isOlder ? range?.from === 0 : range?.to === Infinity
  if (!range || isComplete || history[flag]) return ok(null)
  // The part can be empty: an end that is not loaded yet, or one whose messages were all removed.
  const seq = (isOlder ? messages[0] : messages.at(-1))?.row.seq ?? (isOlder ? range.from : range.to)
  conversation.change((changed) => (changed[flag] = true))
  const request = { conversationId: conversation.id, [at]: seq, limit: PAGE_SIZE }
  const { data, error } = await engine.api.getPage(request)
  conversation.change((changed) => {
    changed[flag] = false
    changed.pageError = error
  })
  if (!data) return ok(null)
  const page = {
    messages: data.data,
    [at]: seq,
    hasOlder: !isOlder || data.has_more,
    hasNewer: isOlder || data.has_more,
  }
  // The anchor is placed where the page was added, so that trimming drops messages at the other
  // end. If the user has moved to another part in the meantime, the anchor stays there.
  addPage(engine, conversation, page, history.contains(seq) ? seq : null)
  return ok(null)
}

async function loadAround(
  engine: Engine,
  conversation: Conversation,
  isWanted: IsWanted,
  anchor: string,
): Promise<Result<null>> {
  const request = { conversationId: conversation.id, around: anchor, limit: PAGE_SIZE }
  const { data, error } = await engine.api.getPage(request)
  if (error) return refused(error)
  const page = { messages: data.data, hasOlder: data.next_cursor !== null, hasNewer: data.prev_cursor !== null }
  const target = data.data.find(({ id }) => id === anchor) ?? data.data[Math.min(PAGE_SIZE / 2, data.data.length - 1)]
  addPage(engine, conversation, page, isWanted() ? (target?.seq ?? Infinity) : null)
  if (target?.id === anchor && isWanted()) conversation.jump({ at: 'message', messageId: anchor, seq: target.seq })
  return ok(null)
}

/** `anchor`: the position to display; null leaves what is displayed. */
function addPage(engine: Engine, conversation: Conversation, page: LoadedPage, anchor: number | null): void {
  if (anchor !== null) conversation.change((history) => history.display(anchor))
  engine.store.addPage(conversation.id, page)
  // If the page reaches the end, the anchor moves there, so that trimming does not drop the end.
  // Without the end, new messages would not be displayed.
  conversation.change((history) => {
    if (history.range?.to === Infinity && page.before === undefined) history.display(Infinity)
  })
}
