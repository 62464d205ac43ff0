import { version } from 'react'
import { version as domVersion } from 'react-dom'
import { expect, it } from 'vitest'

it('runs with the React version of its test project', () => {
  expect([version, domVersion].map((text) => text.split('.')[0])).toEqual([
    process.env['REACT_MAJOR'],
    process.env['REACT_MAJOR'],
  ])
})
