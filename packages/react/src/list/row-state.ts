/** The row has the list's tab stop. */
export const ACTIVE = 1

/** The row shows its toolbar. */
export const TOOLBAR = 2

/** The row is the target of a recent jump. */
export const HIGHLIGHTED = 4

/**
 * Holds which row has the roving tab stop, the toolbar and the highlight. Only rows whose flags
 * change are rendered again, so moving the pointer over the list is cheap.
 */
export class RowState {
  /** Null if the newest row has the tab stop. */
  private active: string | null = null
  private hovered: string | null = null
  private focused: string | null = null
  private highlighted: string | null = null
  private readonly listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  getActive(): string | null {
    return this.active
  }

  setActive(key: string | null): void {
    if (this.active !== key) this.change(() => (this.active = key))
  }

  setHovered(key: string | null): void {
    if (this.hovered !== key) this.change(() => (this.hovered = key))
  }

  setFocused(key: string | null): void {
    if (this.focused !== key) this.change(() => (this.focused = key))
  }

  /** Whether the focus is in this row, and is shown. */
  isFocused(key: string): boolean {
    return this.focused === key
  }

  setHighlighted(key: string | null): void {
    if (this.highlighted !== key) this.change(() => (this.highlighted = key))
  }

  /** The flags of a row, combined in one number so that a row needs only one subscription. */
  flags(key: string, isNewest: boolean): number {
    return (
      ((this.active === null ? isNewest : this.active === key) ? ACTIVE : 0) |
      ((this.hovered ?? this.focused) === key ? TOOLBAR : 0) |
      (this.highlighted === key ? HIGHLIGHTED : 0)
    )
  }

  private change(apply: () => void): void {
    apply()
    for (const listener of this.listeners) listener()
  }
}
