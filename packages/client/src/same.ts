// Compares snapshots, so that those that did not change remain the same objects.

/** Whether the fields of the first object have the same values in the second one. */
export const haveSameFields = <T extends object>(part: Partial<T>, whole: T): boolean =>
  (Object.keys(part) as (keyof T)[]).every((name) => part[name] === whole[name])

export const haveSameItems = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a.length === b.length && a.every((item, index) => item === b[index])
