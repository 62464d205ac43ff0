'use client'

import type { ButtonHTMLAttributes, ReactNode, Ref } from 'react'

export interface IconButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  /** The accessible name, which is also shown as a tooltip. */
  label: string
  size?: 'small' | 'medium'
  buttonRef?: Ref<HTMLButtonElement>
  children: ReactNode
}

export function IconButton({
  label,
  size = 'medium',
  buttonRef,
  className = '',
  children,
  ...rest
}: IconButtonProps): ReactNode {
  return (
    <button
      ref={buttonRef}
      type="button"
      className={`rpt-icon-button ${className}`}
      data-size={size}
      aria-label={label}
      title={label}
      {...rest}
    >
      {children}
    </button>
  )
}
