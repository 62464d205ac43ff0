import { version } from 'react'
import { version as domVersion } from 'react-dom'
import { expect, it } from 'vitest'

it('runs on the version of React that the project names', () => {
  expect([version, domVersion].map((text) => text.split('.')[0])).toEqual([
    process.env['REACT_MAJOR'],
    process.env['REACT_MAJOR'],
  ])
})
