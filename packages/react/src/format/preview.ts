import type { NavigationStrings } from '../strings/navigation-en'
import { inline, oneLine } from './text'

interface Previewed {
  readonly message_type: string
  readonly content: string
  readonly file_name: string | null
  readonly is_deleted: boolean
}

/** Returns a message as one line: its content, its file's name, or words such as "Photo". */
export function previewText(message: Previewed, strings: NavigationStrings): string {
  if (message.is_deleted) return strings.previewDeleted
  if (message.message_type === 'image') return oneLine(message.content) || strings.previewImage
  if (message.message_type === 'file') return strings.previewFile(inline(message.file_name) || strings.file)
  return oneLine(message.content)
}
