/**
 * Returns a random UUID of version 4, with 120 random bits. Pages served over plain HTTP have no
 * `crypto.randomUUID`.
 */
export function randomId(): string {
  return '00000000-0000-4000-a000-000000000000'.replace(/0/g, () => {
    const [byte = 0] = crypto.getRandomValues(new Uint8Array(1))
    return (byte % 16).toString(16)
  })
}
