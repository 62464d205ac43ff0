/** The field's text with `text` at the cursor. Moves the cursor behind it once React has rendered. */
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
