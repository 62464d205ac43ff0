'use client'

import { Fragment, type ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import { inline, tokenize } from './text'

/** The text of a message. Only links and code spans become elements; the rest is plain text. */
export function MessageText({ text }: { text: string }): ReactNode {
  const { renderText } = useChatContext()
  if (renderText) return renderText(text)
  return tokenize(text).map((token, index) => {
    if (token.kind === 'link')
      return (
        // The link has its own direction, so surrounding text cannot change how its address reads.
        <a
          key={index}
          className="rpt-link"
          dir="ltr"
          href={token.href}
          target="_blank"
          rel="noopener noreferrer nofollow ugc"
        >
          {inline(token.text)}
        </a>
      )
    if (token.kind === 'code')
      return (
        <code key={index} className="rpt-code">
          {token.text}
        </code>
      )
    return <Fragment key={index}>{token.text}</Fragment>
  })
}

/** Marks what a search found. The ranges from the server are half-open, in UTF-16 code units. */
export function MarkedText({ text, ranges }: { text: string; ranges: readonly (readonly number[])[] }): ReactNode {
  const parts: ReactNode[] = []
  let end = 0
  for (const [from = 0, to = 0] of ranges) {
    if (from > end) parts.push(<Fragment key={end}>{text.slice(end, from)}</Fragment>)
    parts.push(
      <mark key={from} className="rpt-mark">
        {text.slice(from, to)}
      </mark>,
    )
    end = to
  }
  parts.push(<Fragment key="rest">{text.slice(end)}</Fragment>)
  return parts
}

/**
 * Finds `query` in a name or an email address, ignoring case. The server does not return the ranges
 * for people.
 */
export function rangesOf(text: string, query: string): [number, number][] {
  const wanted = query.trim().toLocaleLowerCase()
  if (!wanted) return []
  const at = text.toLocaleLowerCase().indexOf(wanted)
  return at < 0 ? [] : [[at, at + wanted.length]]
}
