import { act, fireEvent, screen, waitFor } from '@testing-library/react'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { supabaseStorageUpload, UserChatInterface, type Upload } from '../../src'
import { conversation, FakeClient, initialState, PEOPLE, timeline } from '../../src/testing/fake-client'
import { isAccepted, uploadsOf } from '../../src/uploads/uploads'
import { renderWith } from './render'

const WITH_BEN = conversation(PEOPLE.ben).id
const STORED = { url: 'https://files.example/a.pdf', name: 'a.pdf', size: 3, type: 'application/pdf' }

function chatClient(): FakeClient {
  const { config } = initialState()
  return new FakeClient(
    initialState({
      conversations: [conversation(PEOPLE.ben)],
      timelines: { [WITH_BEN]: timeline(WITH_BEN, []) },
      config: config && { ...config, message_types: ['text', 'image', 'file'] },
    }),
  )
}

const file = (name = 'a.pdf', type = 'application/pdf'): File => new File(['abc'], name, { type })

/** Creates an `upload` whose progress and outcome the test controls. */
function controlled(): {
  upload: Upload
  signal: () => AbortSignal
  progress: (share: number) => void
  succeed: () => void
  fail: (error: Error) => void
} {
  let options: Parameters<Upload>[1] | undefined
  let settle: { resolve: (stored: typeof STORED) => void; reject: (error: Error) => void } | undefined
  return {
    upload: (_, given) => {
      options = given
      return new Promise((resolve, reject) => (settle = { resolve, reject }))
    },
    signal: () => options?.signal as AbortSignal,
    progress: (share) => act(() => options?.onProgress(share)),
    succeed: () => settle?.resolve(STORED),
    fail: (error) => settle?.reject(error),
  }
}

const attach = (...files: File[]): void => {
  fireEvent.change(document.querySelector('input[type="file"]') as Element, { target: { files } })
}

// jsdom does not support `URL.createObjectURL`.
beforeEach(() => {
  URL.createObjectURL = vi.fn(() => 'blob:picture')
  URL.revokeObjectURL = vi.fn()
})

describe('an upload', () => {
  it('shows its progress in a bubble and becomes a message', async () => {
    const client = chatClient()
    const { upload, progress, succeed } = controlled()
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { upload })
    attach(file())
    const bar = screen.getByRole('progressbar', { name: 'a.pdf' })
    expect(bar.getAttribute('aria-valuenow')).toBe('0')
    progress(0.4)
    expect(bar.getAttribute('aria-valuenow')).toBe('40')
    expect(client.conversation(WITH_BEN).called('send')).toEqual([])
    succeed()
    await waitFor(() => expect(screen.queryByRole('progressbar')).toBeNull())
    expect(client.conversation(WITH_BEN).called('send')).toEqual([['', { messageType: 'file', file: STORED }]])
  })

  it('can be cancelled, and then sends nothing', async () => {
    const client = chatClient()
    const { upload, signal, succeed } = controlled()
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { upload })
    attach(file())
    fireEvent.click(screen.getByRole('button', { name: 'Cancel upload' }))
    expect(screen.queryByRole('progressbar')).toBeNull()
    expect(signal().aborted).toBe(true)
    succeed()
    await act(async () => undefined)
    expect(client.conversation(WITH_BEN).called('send')).toEqual([])
  })

  it('that fails shows the reason, and can be tried again', async () => {
    const client = chatClient()
    const { upload, fail, succeed } = controlled()
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { upload })
    attach(file())
    fail(new Error('The bucket is full.'))
    expect((await screen.findByRole('alert')).textContent).toContain('Not sent. The bucket is full.')
    fireEvent.click(screen.getByRole('button', { name: 'Retry' }))
    expect(screen.getByRole('progressbar')).toBeTruthy()
    succeed()
    await waitFor(() => expect(client.conversation(WITH_BEN).called('send')).toHaveLength(1))
  })

  it('shows a picture from this device until it is stored', async () => {
    const { upload, succeed } = controlled()
    renderWith(chatClient(), <UserChatInterface conversationId={WITH_BEN} />, { upload })
    attach(file('a.png', 'image/png'))
    expect(screen.getByRole('img', { name: 'Photo: a.png' }).getAttribute('src')).toBe('blob:picture')
    succeed()
    await waitFor(() => expect(URL.revokeObjectURL).toHaveBeenCalledWith('blob:picture'))
  })

  it('continues when the conversation is closed, and ends when the user signs out', async () => {
    const client = chatClient()
    const { upload, signal, succeed } = controlled()
    const { unmount } = renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { upload })
    attach(file())
    unmount()
    succeed()
    await waitFor(() => expect(client.conversation(WITH_BEN).called('send')).toHaveLength(1))
    expect(client.listenerCount).toBe(0)

    const uploads = uploadsOf(client, client.conversation(WITH_BEN))
    uploads.add(file(), upload)
    client.emit({ type: 'forgotten' })
    expect(signal().aborted).toBe(true)
    expect(uploads.getAll()).toEqual([])
    expect(client.listenerCount).toBe(0)
  })

  it('is refused before it begins if the file is too large or of another type', async () => {
    const upload = vi.fn<Upload>()
    renderWith(chatClient(), <UserChatInterface conversationId={WITH_BEN} />, {
      upload,
      uploadLimits: { maxBytes: 2, accept: 'image/*' },
    })
    attach(file())
    expect((await screen.findByRole('alert')).textContent).toContain('A file may have at most 2 bytes.')
    attach(new File(['a'], 'a.pdf', { type: 'application/pdf' }))
    expect(await screen.findByText('Files of this type cannot be sent.')).toBeTruthy()
    expect(upload).not.toHaveBeenCalled()
  })

  it('is not offered if the server accepts only texts', () => {
    const client = chatClient()
    const { config } = client.getState()
    client.set({ config: config && { ...config, message_types: ['text'] } })
    renderWith(client, <UserChatInterface conversationId={WITH_BEN} />, { upload: vi.fn<Upload>() })
    expect(screen.queryByRole('button', { name: 'Attach file' })).toBeNull()
  })
})

describe('isAccepted', () => {
  it('follows the attribute of file inputs', () => {
    expect(isAccepted(file(), undefined)).toBe(true)
    expect(isAccepted(file('A.PDF', ''), '.pdf')).toBe(true)
    expect(isAccepted(file('a.png', 'image/png'), 'image/*, .pdf')).toBe(true)
    expect(isAccepted(file('a.png', 'image/png'), 'application/pdf')).toBe(false)
  })
})

describe('supabaseStorageUpload', () => {
  it('chooses a unique path for the file, and reports the refusal of the bucket', async () => {
    const paths: string[] = []
    const storage = {
      from: () => ({
        createSignedUploadUrl: async (path: string) => {
          paths.push(path)
          return { data: null, error: { message: 'new row violates row-level security policy' } }
        },
        getPublicUrl: () => ({ data: { publicUrl: '' } }),
      }),
    }
    const upload = supabaseStorageUpload({ storage }, 'chat', { folder: 'ana' })
    const options = { signal: new AbortController().signal, onProgress: () => undefined }
    await expect(upload(file('Über uns.pdf'), options)).rejects.toThrow('row-level security')
    expect(paths[0]).toMatch(/^ana\/[0-9a-f]{32}\/_ber_uns\.pdf$/)
  })
})
