'use client'

import { useContext } from 'react'
import { en, type ChatStrings } from '../strings/en'
import { ChatContext, type BaseContextValue } from './base-context'

export {
  useChatClient,
  useSlot,
  type ChatComponents,
  type ChatSlots,
  type ChatTarget,
  type SlotName,
  type SlotProps,
  type ToastMessage,
  type Upload,
  type UploadedFile,
  type UploadLimits,
} from './base-context'

export interface ChatContextValue extends BaseContextValue {
  readonly strings: ChatStrings
}

/**
 * For each context without texts from the application: the context with the English texts. It is
 * created once for all components that read it.
 */
const completed = new WeakMap<BaseContextValue, ChatContextValue>()

export function useChatContext(): ChatContextValue {
  const value = useContext(ChatContext)
  if (hasStrings(value)) return value
  const known = completed.get(value) ?? { ...value, strings: en }
  completed.set(value, known)
  return known
}

const hasStrings = (value: BaseContextValue): value is ChatContextValue => value.strings !== null

export function useStrings(): ChatStrings {
  return useContext(ChatContext).strings ?? en
}
