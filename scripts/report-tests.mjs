/**
 * Node's `spec` reporter with three additions: the closing lines begin with `#` as in TAP, so that whatever counts
 * tests can read them; a file that ran out of time names the tests that were running; the slowest files are named.
 */

import { relative } from 'node:path';
import { Readable } from 'node:stream';
import { spec } from 'node:test/reporters';

const slowestFiles = 5;
const slowMs = 5_000;

export default async function* report(events) {
  const files = new Map();
  const text = Readable.from(watched(events, files)).compose(new spec());
  for await (const chunk of text) yield String(chunk).replaceAll('ℹ ', '# ');
  const slowest = [...files].sort(([, a], [, b]) => b - a);
  for (const [name, ms] of slowest.slice(0, slowestFiles)) {
    if (ms > slowMs) yield `# ${(ms / 1000).toFixed(1).padStart(6)} s ${relative(process.cwd(), name)}\n`;
  }
}

/** Hands the events on; `files` gets how long each file's tests took, in milliseconds. */
async function* watched(events, files) {
  const running = new Map();
  for await (const event of events) {
    yield event;
    const { name, nesting, file, details } = event.data ?? {};
    if (file === undefined) continue;
    const source = sourceOf(file);
    if ((event.type === 'test:pass' || event.type === 'test:fail') && nesting === 0) {
      files.set(source, (files.get(source) ?? 0) + details.duration_ms);
    }
    const key = `${nesting} ${source} ${name}`;
    if (event.type === 'test:dequeue' && name !== file) running.set(key, { name, source });
    if (event.type === 'test:complete') running.delete(key);
    if (event.type !== 'test:fail' || details.error?.failureType !== 'testTimeoutFailure') continue;
    for (const [unfinished, test] of running) {
      if (test.source !== source) continue;
      running.delete(unfinished);
      yield { type: 'test:stderr', data: { file, message: `✖ never ended: ${test.name}\n` } };
    }
  }
}

/** Tests are known by the place in their source, a file by what was compiled from it. */
function sourceOf(file) {
  return file.replace(/[\\/]dist([\\/])/, '$1').replace(/\.[jt]s$/, '');
}
