// A chat client without a user interface. Start with `createChatClient`.

export { UserChatAPI } from './api'
export type * from './api'
export type * from './chat-client'
export { createChatClient } from './create'
export type { AccessToken } from './token'
export type * from './types'
