'use client'

import { ArrowUp, Check, Paperclip, Pencil, Reply, Smile, X } from 'lucide-react'
import { useEffect, useImperativeHandle, useRef, useState, type KeyboardEvent, type ReactNode, type Ref } from 'react'
import { useChatContext, useSlot } from '../context/chat-context'
import { useBrowserLayoutEffect } from '../context/use-latest'
import { codePoints, oneLine } from '../format/text'
import { EmojiPopup } from '../emoji/emoji-popup'
import { useDraft } from '../hooks/use-draft'
import { IconButton } from '../parts/icon-button'
import { insertText } from './composer/insert-text'
import { useIsTouch } from './composer/use-is-touch'

/** The strip above the field while a message is edited or replied to. */
export interface ComposerStrip {
  readonly kind: 'reply' | 'edit'
  readonly title: string
  readonly text: string
}

export interface MessageInputHandle {
  focus(): void
}

export interface MessageInputProps {
  onSendMessage: (content: string) => void
  /** The text, if the field is controlled. If omitted, the field holds its own text. */
  value?: string
  onChange?: (value: string) => void
  onTyping?: () => void
  onStopTyping?: () => void
  onFileUpload?: (file: File) => void
  disabled?: boolean
  placeholder?: string
  /** The accessible name of the field. */
  label?: string
  /** Keeps the text as the draft of this conversation. */
  draftKey?: string
  /** The maximum length, in code points. */
  maxLength?: number
  sendOn?: 'enter' | 'mod+enter'
  strip?: ComposerStrip | null
  onCancelStrip?: () => void
  /** Called when ↑ is pressed in an empty field without a strip. */
  onEditLast?: () => void
  autoFocus?: boolean
  handle?: Ref<MessageInputHandle>
}

const DEFAULT_MAX_LENGTH = 4000

/** The counter appears once the text reaches this fraction of the maximum length. */
const COUNTER_SHARE = 0.9

/** The field for a message, the buttons that add files and emoji, and the button that sends. */
export function MessageInput({ draftKey, ...props }: MessageInputProps): ReactNode {
  const { client } = useChatContext()
  return draftKey && client ? <DraftInput draftKey={draftKey} {...props} /> : <Input {...props} />
}

function DraftInput({ draftKey, ...props }: MessageInputProps & { draftKey: string }): ReactNode {
  const { draft, setDraft } = useDraft(draftKey)
  return (
    <Input
      {...props}
      value={draft}
      onChange={(value) => {
        setDraft(value)
        props.onChange?.(value)
      }}
      onSendMessage={(content) => {
        setDraft('')
        props.onSendMessage(content)
      }}
    />
  )
}

function Input(props: Omit<MessageInputProps, 'draftKey'>): ReactNode {
  const {
    onSendMessage,
    onChange,
    onTyping,
    onStopTyping,
    onFileUpload,
    disabled = false,
    placeholder,
    label,
    maxLength = DEFAULT_MAX_LENGTH,
  } = props
  const { sendOn = 'enter', strip = null, onCancelStrip, onEditLast, autoFocus = false, handle } = props
  const { strings, emojiDataUrl, uploadLimits } = useChatContext()
  const slot = useSlot('composer', 'rpt-composer')
  const [own, setOwn] = useState('')
  const value = props.value ?? own
  const field = useRef<HTMLTextAreaElement>(null)
  const files = useRef<HTMLInputElement>(null)
  const isComposing = useRef(false)
  const [picking, setPicking] = useState<Element | null>(null)
  const isTouch = useIsTouch()

  useImperativeHandle(handle, () => ({ focus: () => field.current?.focus({ preventScroll: true }) }), [])
  useEffect(() => {
    // On a phone, focusing the field would open the keyboard over the conversation.
    if (autoFocus && !isTouch) field.current?.focus({ preventScroll: true })
  }, [autoFocus, isTouch])
  useBrowserLayoutEffect(() => {
    // Measuring during composition closes the suggestions of some input methods.
    if (field.current && !isComposing.current) grow(field.current)
  }, [value])

  const length = codePoints(value)
  const isOver = length > maxLength
  const canSend = !disabled && !isOver && value.trim() !== ''

  const change = (text: string): void => {
    if (props.value === undefined) setOwn(text)
    onChange?.(text)
    if (text.trim() !== '') onTyping?.()
    else onStopTyping?.()
  }
  const send = (): void => {
    if (!canSend) return
    onSendMessage(value.trim())
    if (props.value === undefined) setOwn('')
    onStopTyping?.()
    field.current?.focus({ preventScroll: true })
  }

  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>): void => {
    // If Enter confirms a word of an input method, it must not send. In Safari, `isComposing` is
    // already false for that key, but the key code is 229.
    if (event.nativeEvent.isComposing || event.keyCode === 229) return
    isComposing.current = false
    if (event.key === 'Enter' && !event.shiftKey && !event.altKey) {
      const hasMod = event.ctrlKey || event.metaKey
      const sends = hasMod || (sendOn === 'enter' && !isTouch)
      if (!sends) return
      event.preventDefault()
      send()
    } else if (event.key === 'Escape' && strip) {
      event.preventDefault()
      event.stopPropagation()
      onCancelStrip?.()
    } else if (event.key === 'ArrowUp' && !event.altKey && value === '' && !strip && onEditLast) {
      event.preventDefault()
      onEditLast()
    }
  }

  return (
    <form
      {...slot}
      data-slot="composer"
      data-disabled={disabled || undefined}
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      {strip && <Strip strip={strip} onCancel={onCancelStrip} />}
      <div className="rpt-composer-box" data-over={isOver || undefined}>
        {onFileUpload && (
          <>
            <IconButton label={strings.attach} disabled={disabled} onClick={() => files.current?.click()}>
              <Paperclip aria-hidden size={20} />
            </IconButton>
            <input
              ref={files}
              type="file"
              multiple
              accept={uploadLimits.accept}
              hidden
              tabIndex={-1}
              aria-label={strings.attach}
              onChange={(event) => {
                for (const file of event.currentTarget.files ?? []) onFileUpload(file)
                event.currentTarget.value = ''
              }}
            />
          </>
        )}
        <textarea
          ref={field}
          className="rpt-field"
          data-slot="field"
          rows={1}
          // A placeholder has the direction of the page.
          dir={value ? 'auto' : undefined}
          value={value}
          disabled={disabled}
          placeholder={placeholder ?? strings.composerPlaceholder}
          aria-label={label ?? strings.composerPlaceholder}
          aria-invalid={isOver || undefined}
          enterKeyHint={isTouch ? 'enter' : 'send'}
          autoComplete="off"
          onChange={(event) => change(event.currentTarget.value)}
          onKeyDown={onKeyDown}
          onCompositionStart={() => (isComposing.current = true)}
          onCompositionEnd={() => (isComposing.current = false)}
          onBlur={() => {
            isComposing.current = false
            if (value.trim() === '') onStopTyping?.()
          }}
          onPaste={(event) => {
            const { files } = event.clipboardData
            if (files.length === 0 || !onFileUpload) return
            event.preventDefault()
            for (const file of files) onFileUpload(file)
          }}
        />
        {emojiDataUrl && (
          <IconButton
            label={strings.emoji}
            disabled={disabled}
            aria-haspopup="dialog"
            aria-expanded={picking !== null}
            onClick={(event) => setPicking(picking ? null : event.currentTarget)}
          >
            <Smile aria-hidden size={20} />
          </IconButton>
        )}
        <button
          type="submit"
          className="rpt-send"
          data-slot="send"
          disabled={!canSend}
          aria-label={strip?.kind === 'edit' ? strings.saveEdit : strings.send}
          title={strip?.kind === 'edit' ? strings.saveEdit : strings.send}
          onPointerDown={(event) => event.preventDefault()}
        >
          {strip?.kind === 'edit' ? <Check aria-hidden size={20} /> : <ArrowUp aria-hidden size={20} />}
        </button>
      </div>
      {length >= maxLength * COUNTER_SHARE && (
        <p className="rpt-counter" data-slot="counter" data-over={isOver || undefined} role="status">
          {isOver ? strings.charactersOver(length - maxLength) : strings.charactersLeft(maxLength - length)}
        </p>
      )}
      {picking && (
        <EmojiPopup
          anchor={picking}
          onClose={() => setPicking(null)}
          onSelect={(emoji) => {
            setPicking(null)
            if (field.current) change(insertText(field.current, emoji))
          }}
        />
      )}
    </form>
  )
}

function Strip({ strip, onCancel }: { strip: ComposerStrip; onCancel: (() => void) | undefined }): ReactNode {
  const { strings } = useChatContext()
  const Icon = strip.kind === 'edit' ? Pencil : Reply
  return (
    <div className="rpt-strip" data-slot="strip" data-kind={strip.kind}>
      <Icon aria-hidden size={16} className="rpt-mirrored" />
      <div className="rpt-strip-text">
        <span className="rpt-strip-title">{strip.title}</span>
        <span className="rpt-strip-quote" dir="auto">
          {oneLine(strip.text)}
        </span>
      </div>
      <IconButton
        label={strip.kind === 'edit' ? strings.cancelEdit : strings.cancelReply}
        size="small"
        onClick={onCancel}
      >
        <X aria-hidden size={18} />
      </IconButton>
    </div>
  )
}

/** Grows the field with its text in browsers that do not support `field-sizing`. */
function grow(field: HTMLTextAreaElement): void {
  if (typeof CSS === 'undefined' || CSS.supports('field-sizing', 'content')) return
  field.style.blockSize = 'auto'
  // `scrollHeight` does not include the borders.
  field.style.blockSize = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`
}
