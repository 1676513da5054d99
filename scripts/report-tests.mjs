/**
 * Node's `spec` reporter with two additions: the closing lines begin with `#` as in TAP, so that whatever
 * counts tests can read them, and a file that ran out of time names the test that was running.
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
    const { name, nesting, file } = event.data ?? {};
    const key = `${file}\n${nesting}\n${name}`;
    if (event.type === 'test:dequeue' && name !== file) running.set(key, name);
    if (event.type === 'test:complete') running.delete(key);
    yield event;
    if (event.type === 'test:fail' && event.data.details?.error?.failureType === 'testTimeoutFailure') {
      for (const [unfinished, test] of running) {
        if (!unfinished.startsWith(`${file}\n`)) continue;
        running.delete(unfinished);
        yield { type: 'test:stderr', data: { file, message: `✖ never ended: ${test} (${file})\n` } };
      }
    }
  }
}
