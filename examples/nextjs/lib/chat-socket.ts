// The client whose channels are Rapport's. Sign-in and tables stay with the Supabase client that is there.

import { createClient, type SupabaseClient } from '@supabase/supabase-js'

/** `address`: where the socket is, as `wss://chat.example.com`. `anonKey`: the project's public key. */
export async function connectChat(supabase: SupabaseClient, address: string, anonKey: string): Promise<SupabaseClient> {
  const accessToken = async () => (await supabase.auth.getSession()).data.session?.access_token ?? null
  const chat = createClient(address.replace(/^ws/, 'http'), anonKey, { accessToken })
  // Before the first channel, which would otherwise join as nobody.
  await chat.realtime.setAuth()
  // A new token reaches the channels at once, and they go on.
  supabase.auth.onAuthStateChange((event) => {
    if (event === 'TOKEN_REFRESHED' || event === 'SIGNED_IN') void chat.realtime.setAuth()
  })
  return chat
}
