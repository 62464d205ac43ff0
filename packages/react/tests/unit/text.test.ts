import { describe, expect, it } from 'vitest'
import { codePoints, isEmojiOnly, isLong, tokenize } from '../../src/format/text'

describe('tokenize', () => {
  const links = (text: string): string[] =>
    tokenize(text).flatMap((token) => (token.kind === 'link' ? [token.href] : []))

  it('finds web addresses without the punctuation of the sentence', () => {
    expect(links('See https://example.com/a?b=c, and www.example.org.')).toEqual([
      'https://example.com/a?b=c',
      'https://www.example.org',
    ])
    expect(links('(https://example.com/x_(y))')).toEqual(['https://example.com/x_(y)'])
  })

  it('finds email addresses', () => {
    expect(links('mail help@example.com!')).toEqual(['mailto:help@example.com'])
  })

  it('makes no links from other schemes', () => {
    expect(links('javascript:alert(1) data:text/html,x vbscript:x file:///etc/passwd')).toEqual([])
  })

  it('does not change code', () => {
    expect(tokenize('run `curl https://example.com` now')).toEqual([
      { kind: 'text', text: 'run ' },
      { kind: 'code', text: 'curl https://example.com' },
      { kind: 'text', text: ' now' },
    ])
  })

  it('removes only closing brackets that the address does not open', () => {
    for (const [text, href] of [
      ['https://a.example/x)', 'https://a.example/x'],
      ['https://a.example/x).)!', 'https://a.example/x'],
      ['https://a.example/(x)).', 'https://a.example/(x)'],
      ['https://a.example/((x))', 'https://a.example/((x))'],
      ['https://a.example/)x(', 'https://a.example/)x('],
    ] as const)
      expect(links(text), text).toEqual([href])
  })

  it('makes no link from the end of a long word', () => {
    expect(links(`${'a'.repeat(64)}@example.com`)).toHaveLength(1)
    expect(links(`${'a'.repeat(65)}@example.com`)).toEqual([])
  })

  // In quadratic time, these tests would take minutes, and in cubic time, years.
  it.each([
    ['brackets after dots', `https://a${'.'.repeat(200_000)}x${')'.repeat(200_000)}`],
    ['brackets', `https://x${')'.repeat(400_000)}`],
    ['brackets and dots', `https://x${').'.repeat(200_000)}`],
    ['one word', 'a'.repeat(400_000)],
    ['many "@"', 'a@'.repeat(200_000)],
    ['a domain without end', `a@a${'.a'.repeat(200_000)}.`],
    ['backticks', '`'.repeat(400_000)],
    ['backticks and line ends', '`\n'.repeat(200_000)],
  ])('takes linear time for %s', (_, text) => {
    const shown = tokenize(text).map((token) => (token.kind === 'code' ? `\`${token.text}\`` : token.text))
    expect(shown.join('').length).toBe(text.length)
  })

  it('preserves the whole text', () => {
    for (const text of [
      '',
      'plain',
      '`a` b https://c.de. `',
      'a@b.c, www.x.y! <img onerror=x>',
      'https://[broken and http://ok.example',
    ]) {
      const shown = tokenize(text)
        .map((token) => (token.kind === 'code' ? `\`${token.text}\`` : token.text))
        .join('')
      expect(shown).toBe(text)
    }
  })
})

describe('the length of a text', () => {
  it('is counted in code points, as on the server', () => {
    expect(codePoints('😀'.repeat(4000))).toBe(4000)
  })

  it('determines whether a message is folded', () => {
    expect(isLong('line\n'.repeat(11))).toBe(false)
    expect(isLong('line\n'.repeat(13))).toBe(true)
    expect(isLong('x'.repeat(1201))).toBe(true)
  })
})

describe('isEmojiOnly', () => {
  it.each(['🎉', '😀😀😀', '👨‍👩‍👧 ❤️', '🇩🇪', 'ℹ️', '1️⃣', '🅰️', 'Ⓜ️'])('accepts %s', (text) => expect(isEmojiOnly(text)).toBe(true))
  it.each(['', 'a', 'ж', '好', '🎉!', '😀😀😀😀', '12'])('refuses %s', (text) => expect(isEmojiOnly(text)).toBe(false))
})
