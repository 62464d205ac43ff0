import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

const target = process.env['RAPPORT_URL'] ?? 'http://127.0.0.1:4000'

export default defineConfig({
  plugins: [react()],
  preview: {
    proxy: { '/api': { target }, '/auth': { target }, '/dev': { target }, '/realtime': { target, ws: true } },
  },
})
