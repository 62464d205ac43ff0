/**
 * Returns the field's text with `text` inserted at the cursor, in place of any selected text. Once
 * React has rendered, moves the cursor behind the inserted text.
 */
export function insertText(field: HTMLTextAreaElement, text: string): string {
  const { selectionStart, selectionEnd, value } = field
  const next = value.slice(0, selectionStart) + text + value.slice(selectionEnd)
  const cursor = selectionStart + text.length
  requestAnimationFrame(() => {
    field.focus({ preventScroll: true })
    field.setSelectionRange(cursor, cursor)
  })
  return next
}
