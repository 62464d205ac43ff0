const RAPPORT_URL = process.env.RAPPORT_URL ?? 'http://127.0.0.1:4000'

/** @type {import('next').NextConfig} */
export default {
  reactStrictMode: true,
  // The app is built in a separate folder. Without this setting, Next.js would look for a workspace
  // in the folders above it.
  turbopack: { root: import.meta.dirname },
  async rewrites() {
    return {
      beforeFiles: ['api/supabase/user-chat', 'auth/v1', 'dev', 'realtime/v1'].map((path) => ({
        source: `/${path}/:path*`,
        destination: `${RAPPORT_URL}/${path}/:path*`,
      })),
    }
  },
}
