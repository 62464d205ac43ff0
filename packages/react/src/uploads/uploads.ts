import type { ChatClient, ConversationClient } from '@rapport-chat/client'
import type { Upload, UploadedFile } from '../context/base-context'

/** A file on its way to the application's storage. It becomes a message when it has arrived. */
export interface PendingUpload {
  readonly id: number
  readonly file: File
  /** The local address of an image; null for other files. */
  readonly preview: string | null
  /** The uploaded fraction, from 0 to 1. */
  readonly progress: number
  readonly error: string | null
}

const queues = new WeakMap<ConversationClient, Uploads>()

/**
 * Returns the uploads of a conversation. They continue when the conversation is closed, and end
 * when the user signs out.
 */
export function uploadsOf(client: ChatClient, conversation: ConversationClient): Uploads {
  const known = queues.get(conversation) ?? new Uploads(client, conversation)
  queues.set(conversation, known)
  return known
}

export class Uploads {
  private all: readonly PendingUpload[] = []
  private last = 0
  private readonly running = new Map<number, AbortController>()
  private readonly listeners = new Set<() => void>()
  private unlisten: (() => void) | null = null

  constructor(
    private readonly client: ChatClient,
    private readonly conversation: ConversationClient,
  ) {}

  readonly getAll = (): readonly PendingUpload[] => this.all

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  add(file: File, upload: Upload): void {
    const id = ++this.last
    const preview = isImage(file) ? URL.createObjectURL(file) : null
    this.unlisten ??= this.client.listen(({ type }) => {
      if (type === 'forgotten') for (const one of this.all) this.cancel(one.id)
    })
    this.set([...this.all, { id, file, preview, progress: 0, error: null }])
    void this.run(id, file, upload)
  }

  retry(id: number, upload: Upload): void {
    const one = this.all.find((other) => other.id === id && other.error !== null)
    if (!one) return
    this.change(id, { progress: 0, error: null })
    void this.run(id, one.file, upload)
  }

  cancel(id: number): void {
    this.running.get(id)?.abort()
    this.remove(id)
  }

  private async run(id: number, file: File, upload: Upload): Promise<void> {
    const abort = new AbortController()
    const { signal } = abort
    this.running.set(id, abort)
    const onProgress = (share: number): void => {
      if (!signal.aborted) this.change(id, { progress: Math.min(1, Math.max(0, share)) })
    }
    try {
      const [stored, size] = await Promise.all([upload(file, { signal, onProgress }), sizeOf(file)])
      if (signal.aborted) return
      this.remove(id)
      this.send(file, stored, size)
    } catch (error) {
      if (!signal.aborted) this.change(id, { error: error instanceof Error ? error.message : '' })
    } finally {
      if (this.running.get(id) === abort) this.running.delete(id)
    }
  }

  private send(file: File, stored: UploadedFile, size: Size | null): void {
    this.conversation.send('', {
      messageType: isImage(file) ? 'image' : 'file',
      file: stored,
      // With the size, the list reserves the space of an image before it is loaded.
      ...(size && { metadata: { ...size } }),
    })
  }

  private change(id: number, values: Partial<PendingUpload>): void {
    this.set(this.all.map((one) => (one.id === id ? { ...one, ...values } : one)))
  }

  private remove(id: number): void {
    const one = this.all.find((other) => other.id === id)
    if (!one) return
    if (one.preview) URL.revokeObjectURL(one.preview)
    this.set(this.all.filter((other) => other !== one))
    if (this.all.length > 0) return
    this.unlisten?.()
    this.unlisten = null
  }

  private set(all: readonly PendingUpload[]): void {
    this.all = all
    for (const listener of this.listeners) listener()
  }
}

interface Size {
  readonly width: number
  readonly height: number
}

function isImage(file: File): boolean {
  return file.type.startsWith('image/')
}

/** Returns the size of an image in pixels; null for other files, or if it cannot be decoded. */
async function sizeOf(file: File): Promise<Size | null> {
  if (!isImage(file) || typeof createImageBitmap === 'undefined') return null
  try {
    const { width, height } = await createImageBitmap(file)
    return { width, height }
  } catch {
    return null
  }
}

/** Whether the file matches `accept`, which has the format of a file input's attribute. */
export function isAccepted({ name, type }: File, accept: string | undefined): boolean {
  if (!accept) return true
  return accept
    .split(',')
    .map((one) => one.trim().toLowerCase())
    .some((one) => {
      if (one.startsWith('.')) return name.toLowerCase().endsWith(one)
      return one.endsWith('/*') ? type.startsWith(one.slice(0, -1)) : type === one
    })
}
