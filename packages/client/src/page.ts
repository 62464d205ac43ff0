// The page that the client runs in. `browser-page.ts` reads its state from the DOM.

export type PageSignal =
  /** `isVisible` or `hasFocus` changed. */
  | 'attention'
  /** `isOnline` changed. */
  | 'network'
  /** The user moved a pointer, pressed a key, scrolled or touched the page. */
  | 'activity'
  /** The page is being closed, or put into the back/forward cache. */
  | 'leave'
  /** The page returned from the back/forward cache, without its connections. */
  | 'return'

export interface Page {
  isVisible(): boolean
  hasFocus(): boolean
  isOnline(): boolean
  listen(listener: (signal: PageSignal) => void): () => void
  /**
   * Resolves after the next frame, so that all changes made until now are painted. If the page is
   * hidden, resolves at once.
   */
  painted(): Promise<void>
}

/** A page that is always visible, for servers and tests. */
export const quietPage: Page = {
  isVisible: () => true,
  hasFocus: () => true,
  isOnline: () => true,
  listen: () => () => {},
  painted: async () => {},
}
