/** How long is waited where more is asked for than Node's timers hold. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Attempts, pause } from '../../../lib/jobs/session/attempts.js';

const LONG_MS = 1000 * 3_600_000;

test('a pause of weeks goes on until it is ended', async () => {
  const ending = new AbortController();
  let isOver = false;
  const over = pause(LONG_MS, ending.signal).then(() => {
    isOver = true;
  });
  await sleep(50);
  assert.equal(isOver, false);
  ending.abort();
  await over;
});

test('weeks to stop are not over at once', async () => {
  const stopping = new AbortController();
  const attempts = new Attempts({ signal: stopping.signal, stopTimeoutMs: LONG_MS, onRetry: () => {} });
  stopping.abort();
  await sleep(50);
  assert.equal(attempts.interrupt.aborted, false);
  attempts.close();
});
