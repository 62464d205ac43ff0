import type { Upload } from '../context/base-context'

/** The part of a client of `@supabase/supabase-js` that `supabaseStorageUpload` uses. */
export interface SupabaseStorage {
  storage: {
    from(bucket: string): {
      createSignedUploadUrl(
        path: string,
      ): PromiseLike<{ data: { signedUrl: string } | null; error: { message: string } | null }>
      getPublicUrl(path: string): { data: { publicUrl: string } }
    }
  }
}

export interface SupabaseStorageOptions {
  /** The folder of the files, for example the user's id if policies require it. */
  folder?: string
}

/**
 * Stores files in a public bucket, with progress and a way to cancel. The bucket's public address
 * must be below the server's `storage_url`.
 */
export function supabaseStorageUpload(
  supabase: SupabaseStorage,
  bucket: string,
  { folder }: SupabaseStorageOptions = {},
): Upload {
  return async (file, { signal, onProgress }) => {
    const store = supabase.storage.from(bucket)
    // Names in a bucket allow few characters. The message keeps the original name.
    const path = [folder, randomName(), file.name.replaceAll(/[^\w.-]+/gu, '_')].filter(Boolean).join('/')
    const { data, error } = await store.createSignedUploadUrl(path)
    if (!data) throw new Error(error?.message)
    await put(data.signedUrl, file, signal, onProgress)
    return { url: store.getPublicUrl(path).data.publicUrl, name: file.name, size: file.size, type: file.type }
  }
}

/** Uses `XMLHttpRequest`, because `fetch` does not report how much of a body was sent. */
function put(address: string, file: File, signal: AbortSignal, onProgress: (share: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    const fail = (): void => reject(new Error(request.statusText))
    signal.addEventListener('abort', () => request.abort())
    request.upload.addEventListener('progress', ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0))
    request.addEventListener('load', () => (request.status < 300 ? resolve() : fail()))
    for (const type of ['error', 'abort'] as const) request.addEventListener(type, fail)
    request.open('PUT', address)
    const body = new FormData()
    body.append('cacheControl', '3600')
    body.append('', file)
    request.send(body)
  })
}

function randomName(): string {
  // `crypto.randomUUID` is missing on pages without TLS.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
