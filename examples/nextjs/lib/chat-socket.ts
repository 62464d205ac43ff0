// A client for Rapport's channels. The existing Supabase client still handles sign-in and tables.

import { createClient, type SupabaseClient } from '@supabase/supabase-js'

/**
 * Creates a client for channels. `address` is the URL of the socket, for example
 * `wss://chat.example.com`. `anonKey` is the project's public key.
 */
export async function connectChat(supabase: SupabaseClient, address: string, anonKey: string): Promise<SupabaseClient> {
  const accessToken = async () => (await supabase.auth.getSession()).data.session?.access_token ?? null
  const chat = createClient(address.replace(/^ws/, 'http'), anonKey, { accessToken })
  // The token must be set before the first channel, which would otherwise join without a user.
  await chat.realtime.setAuth()
  // Passes a new token to the channels, which stay joined.
  supabase.auth.onAuthStateChange((event) => {
    if (event === 'TOKEN_REFRESHED' || event === 'SIGNED_IN') void chat.realtime.setAuth()
  })
  return chat
}
