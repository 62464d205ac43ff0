'use client'

import { EmojiPicker as Picker } from 'frimousse'
import type { ComponentProps, ReactNode } from 'react'
import { useStrings } from '../context/chat-context'

interface EmojiPickerProps {
  /** The address of the emoji data. The picker never loads data from a public host. */
  dataUrl: string
  onSelect: (emoji: string) => void
}

const COLUMNS = 8

const PARTS: NonNullable<ComponentProps<typeof Picker.List>['components']> = {
  CategoryHeader: ({ category, ...rest }) => (
    <div {...rest} className="rpt-emoji-category">
      {category.label}
    </div>
  ),
  Row: ({ children, ...rest }) => (
    <div {...rest} className="rpt-emoji-row">
      {children}
    </div>
  ),
  Emoji: ({ emoji, ...rest }) => (
    <button type="button" {...rest} className="rpt-emoji-button" data-active={emoji.isActive || undefined}>
      {emoji.emoji}
    </button>
  ),
}

export default function EmojiPicker({ dataUrl, onSelect }: EmojiPickerProps): ReactNode {
  const strings = useStrings()
  return (
    <Picker.Root
      className="rpt-emoji"
      locale="en"
      emojibaseUrl={dataUrl}
      columns={COLUMNS}
      onEmojiSelect={({ emoji }) => onSelect(emoji)}
    >
      <Picker.Search
        className="rpt-emoji-search"
        aria-label={strings.emojiSearch}
        placeholder={strings.emojiSearch}
        autoFocus
      />
      <Picker.Viewport className="rpt-emoji-viewport">
        <Picker.Loading className="rpt-emoji-loading">{strings.emojiLoading}</Picker.Loading>
        <Picker.Empty className="rpt-emoji-loading">{strings.emojiNone}</Picker.Empty>
        <Picker.List className="rpt-emoji-list" components={PARTS} />
      </Picker.Viewport>
    </Picker.Root>
  )
}
