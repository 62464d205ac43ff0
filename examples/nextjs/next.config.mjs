// The address at which this server reaches Rapport. It is never sent to browsers.
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
