// Loaded before the tests that run on React 18: modules outside of this repository, which are not
// transformed, require React by themselves.
const Module = require('node:module')

const resolve = Module._resolveFilename
Module._resolveFilename = function (request, parent, ...rest) {
  const isReact = /^(react|react-dom)(\/|$)/.test(request)
  return resolve.call(this, request, isReact ? module : parent, ...rest)
}
