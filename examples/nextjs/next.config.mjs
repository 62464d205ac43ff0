// The address of Rapport for this server. Browsers never see it.
const RAPPORT_URL = process.env.RAPPORT_URL ?? 'http://127.0.0.1:4000'

/** @type {import('next').NextConfig} */
export default {
  async rewrites() {
    return {
      // Takes precedence over existing handlers below app/api/supabase/user-chat.
      beforeFiles: [
        { source: '/api/supabase/user-chat/:path*', destination: `${RAPPORT_URL}/api/supabase/user-chat/:path*` },
        { source: '/realtime/v1/:path*', destination: `${RAPPORT_URL}/realtime/v1/:path*` },
      ],
    }
  },
}
