import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ok } from './errors'
import { settled } from './testing'
import { Wishes } from './wishes'

test('after quick taps the last wish applies, with one request at a time', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ value: fc.boolean(), answers: fc.boolean() }), { minLength: 1, maxLength: 12 }),
      async (taps) => {
        const wishes = new Wishes()
        let stored: boolean | null = null
        const running: { value: boolean; answer: () => void }[] = []
        const request = (value: boolean) =>
          new Promise<ReturnType<typeof ok<null>>>((resolve) => {
            running.push({
              value,
              answer: () => {
                stored = value
                resolve(ok(null))
              },
            })
          })
        const answer = async () => {
          running.shift()?.answer()
          await settled()
        }
        for (const { value, answers } of taps) {
          void wishes.wish('👍', value, request)
          expect(running.length).toBeLessThanOrEqual(1)
          if (answers) await answer()
        }
        while (running.length > 0) await answer()
        expect(stored).toBe(taps.at(-1)?.value)
      },
    ),
  )
})
