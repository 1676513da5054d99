/**
 * Node's `spec` reporter with two additions: the closing lines begin with `#` as in TAP, so that whatever
 * counts tests can read them, and a file that ran out of time names the tests that were running.
 */

import { Readable } from 'node:stream';
import { spec } from 'node:test/reporters';

export default async function* report(events) {
  const text = Readable.from(watched(events)).compose(new spec());
  for await (const chunk of text) yield String(chunk).replaceAll('ℹ ', '# ');
}

async function* watched(events) {
  const running = new Map();
  for await (const event of events) {
    yield event;
    const { name, nesting, file, details } = event.data ?? {};
    const key = `${nesting} ${sourceOf(file)} ${name}`;
    if (event.type === 'test:dequeue' && name !== file) running.set(key, { name, source: sourceOf(file) });
    if (event.type === 'test:complete') running.delete(key);
    if (event.type !== 'test:fail' || details.error?.failureType !== 'testTimeoutFailure') continue;
    for (const [unfinished, { name, source }] of running) {
      if (source !== sourceOf(file)) continue;
      running.delete(unfinished);
      yield { type: 'test:stderr', data: { file, message: `✖ never ended: ${name}\n` } };
    }
  }
}

/** Tests are known by the place in their source, a file that timed out by what was compiled from it. */
function sourceOf(file) {
  return file?.replace(/[\\/]dist([\\/])/, '$1').replace(/\.[jt]s$/, '');
}
