// Measures the work of a page's main thread, from the browser's trace.

/** Script, style and layout events. Painting and compositing do not count as work of the page. */
const WORK = new Set([
  'EvaluateScript',
  'FunctionCall',
  'TimerFire',
  'FireAnimationFrame',
  'EventDispatch',
  'RunMicrotasks',
  'UpdateLayoutTree',
  'Layout',
  'IntersectionObserverController::computeIntersections',
])

/**
 * Starts recording a trace. `stop` ends the recording and returns its `summary`. The CPU time of a
 * task is recorded because other programs delay a task, but hardly change its CPU time.
 */
export async function mainThread({ context, page }) {
  const session = await context.newCDPSession(page)
  const events = []
  session.on('Tracing.dataCollected', ({ value }) => events.push(...value))
  const done = new Promise((resolve) => session.once('Tracing.tracingComplete', resolve))
  await session.send('Tracing.start', {
    transferMode: 'ReportEvents',
    traceConfig: {
      recordMode: 'recordAsMuchAsPossible',
      includedCategories: ['devtools.timeline', 'disabled-by-default-devtools.timeline'],
      excludedCategories: ['*'],
    },
  })
  return {
    async stop() {
      await session.send('Tracing.end')
      await done
      return summary(events)
    },
  }
}

/**
 * Returns the duration and CPU time of each task, the work of each frame that has any, and all
 * events of the main thread. Times of tasks and frames are in milliseconds.
 */
export function summary(events) {
  // The thread with the most layouts is the page's main thread. Other pages have their own threads.
  const counts = new Map()
  for (const { name, pid, tid } of events)
    if (name === 'UpdateLayoutTree') counts.set(`${pid} ${tid}`, (counts.get(`${pid} ${tid}`) ?? 0) + 1)
  const main = [...counts].sort((a, b) => b[1] - a[1])[0]?.[0]
  const own = events.filter(({ pid, tid }) => `${pid} ${tid}` === main).sort((a, b) => a.ts - b.ts)

  const tasks = own
    .filter(({ name, ph }) => name === 'RunTask' && ph === 'X')
    .map(({ dur = 0, tdur = 0 }) => ({ time: dur / 1000, cpu: tdur / 1000 }))
  const frames = []
  let work = 0
  let end = 0
  for (const { name, ph, ts, dur = 0 } of own) {
    // In each frame, this event follows the script, the styles and the layout.
    if (name === 'PrePaint') {
      frames.push(work)
      work = 0
    }
    // Of nested events, only the outermost one counts.
    if (ph === 'X' && WORK.has(name) && ts >= end) {
      work += dur / 1000
      end = ts + dur
    }
  }
  frames.push(work)
  return { tasks, frames: frames.filter((dur) => dur > 0), events: own }
}
