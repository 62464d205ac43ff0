export { en } from './en'
export type { ChatStrings } from './en'
