'use client'

import type { ReactNode } from 'react'
import { useChatContext } from '../context/chat-context'
import type { ChatStrings } from '../strings/en'

export type EmptyVariant =
  | 'no-selection'
  | 'no-conversations'
  | 'no-unread'
  | 'no-archived'
  | 'no-results'
  | 'not-found'
  | 'error'

export interface EmptyStateProps {
  variant?: EmptyVariant
  title?: string
  description?: string
  /** The error's code, shown in small print for support requests. */
  code?: string
  action?: { label: string; onClick: () => void }
  onNewConversation?: () => void
}

/** Shown in place of missing content: a drawing, a heading, a sentence and a button. */
export function EmptyState(props: EmptyStateProps): ReactNode {
  const { components } = useChatContext()
  const Replacement = components.EmptyState
  return Replacement ? <Replacement {...props} /> : <DefaultEmptyState {...props} />
}

function DefaultEmptyState({
  variant = 'no-selection',
  title,
  description,
  code,
  action,
  onNewConversation,
}: EmptyStateProps): ReactNode {
  const { strings } = useChatContext()
  const [heading, text] = textsOf(variant, strings)
  const button = action ?? (onNewConversation && { label: strings.newMessage, onClick: onNewConversation })
  return (
    <div className="rpt-empty" data-slot="empty-state" data-variant={variant}>
      <Drawing variant={variant} />
      <h2 className="rpt-empty-title">{title ?? heading}</h2>
      {(description ?? text) && <p className="rpt-empty-text">{description ?? text}</p>}
      {button && (
        <button type="button" className="rpt-button" data-kind="primary" onClick={button.onClick}>
          {button.label}
        </button>
      )}
      {code && <p className="rpt-empty-code">{strings.errorCode(code)}</p>}
    </div>
  )
}

function textsOf(variant: EmptyVariant, strings: ChatStrings): [string, string] {
  switch (variant) {
    case 'no-selection':
      return [strings.emptySelectionTitle, strings.emptySelectionText]
    case 'no-conversations':
      return [strings.emptyListTitle, strings.emptyListText]
    case 'no-unread':
      return [strings.emptyUnreadTitle, strings.emptyUnreadText]
    case 'no-archived':
      return [strings.emptyArchiveTitle, strings.emptyArchiveText]
    case 'no-results':
      return [strings.emptyResultsTitle, strings.emptyResultsText]
    case 'not-found':
      return [strings.emptyNotFoundTitle, strings.emptyNotFoundText]
    case 'error':
      return [strings.emptyErrorTitle, '']
  }
}

/** Two bubbles in the accent colour. The mark in the front one depends on the variant. */
function Drawing({ variant }: { variant: EmptyVariant }): ReactNode {
  return (
    <svg className="rpt-drawing" viewBox="0 0 96 96" width="96" height="96" aria-hidden="true" focusable="false">
      <path
        className="rpt-drawing-back"
        d="M38 14h36a12 12 0 0 1 12 12v20a12 12 0 0 1-12 12h-2v9l-11-9H38a12 12 0 0 1-12-12V26a12 12 0 0 1 12-12Z"
      />
      <path
        className="rpt-drawing-front"
        d="M22 34h36a12 12 0 0 1 12 12v18a12 12 0 0 1-12 12H36l-12 10V76h-2a12 12 0 0 1-12-12V46a12 12 0 0 1 12-12Z"
      />
      <path className="rpt-drawing-mark" d={markOf(variant)} />
    </svg>
  )
}

function markOf(variant: EmptyVariant): string {
  switch (variant) {
    case 'no-unread':
      return 'm30 55 7 7 13-14'
    case 'no-results':
    case 'not-found':
      return 'M39 47a7 7 0 1 1 0 14 7 7 0 0 1 0-14Zm5 12 6 6'
    case 'error':
      return 'M40 46v10m0 7v.5'
    case 'no-archived':
      return 'M29 49h22v5H29Zm2 5v10h18V54m-11 4h4'
    default:
      return 'M26 49h28M26 60h18'
  }
}
