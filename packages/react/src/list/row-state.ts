/**
 * Which row has the roving tab stop, the toolbar and the highlight. Only the rows that these change
 * for are rendered again, so that moving the pointer over the list stays cheap.
 */
export class RowState {
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

  setHighlighted(key: string | null): void {
    if (this.highlighted !== key) this.change(() => (this.highlighted = key))
  }

  isActive(key: string): boolean {
    return this.active === key
  }

  hasToolbar(key: string): boolean {
    return (this.hovered ?? this.focused) === key
  }

  isHighlighted(key: string): boolean {
    return this.highlighted === key
  }

  private change(apply: () => void): void {
    apply()
    for (const listener of this.listeners) listener()
  }
}
