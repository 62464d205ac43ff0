import type { ReactNode } from 'react'

// The icons of the navigation. They are shapes from Lucide (ISC licence, copyright Lucide Icons and
// Contributors). Lucide's components are not used, because they are larger than all other code that
// a badge needs.

interface IconProps {
  /** The width and height in pixels. */
  size: number
}

export const CloseIcon = ({ size }: IconProps): ReactNode => <Icon size={size} path="M18 6 6 18M6 6l12 12" />

export const MessagesIcon = ({ size }: IconProps): ReactNode => (
  <Icon
    size={size}
    path="M16 10a2 2 0 0 1-2 2H6.828a2 2 0 0 0-1.414.586l-2.202 2.202A.71.71 0 0 1 2 14.286V4a2 2 0 0 1 2-2h10a2 2 0 0 1 2 2zM20 9a2 2 0 0 1 2 2v10.286a.71.71 0 0 1-1.212.502l-2.202-2.202A2 2 0 0 0 17.172 19H10a2 2 0 0 1-2-2v-1"
  />
)

/** A head and shoulders, for a person whose name is not known. */
export const PersonIcon = ({ size }: IconProps): ReactNode => (
  <Icon size={size} path="M19 21v-2a4 4 0 0 0-4-4H9a4 4 0 0 0-4 4v2M12 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8" />
)

function Icon({ size, path }: IconProps & { path: string }): ReactNode {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth="2"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      <path d={path} />
    </svg>
  )
}
