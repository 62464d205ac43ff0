export interface Signal {
  readonly promise: Promise<void>
  resolve(): void
}

/** Creates a promise that is resolved from outside. */
export function signal(): Signal {
  let resolve: () => void
  const promise = new Promise<void>((settle) => (resolve = settle))
  return { promise, resolve: () => resolve() }
}
