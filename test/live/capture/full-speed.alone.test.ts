/**
 * A writer of thousands of commits a second, followed without a gap. At its rate a generation of its WAL lives for some 50 ms:
 * who cannot look that often has gaps, and mends them. So this needs a core for the follower, and runs alone. As fast as a
 * machine can, a writer may leave less time than a follower's garbage collection takes.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { gapsIn } from '../../support/replication.js';
import { walRestarts } from '../../support/wal-file.js';

const STARVED = 0.15;
/** Commits a second. */
const RATE = 5000;

function percent(share: number | undefined): string {
  return share === undefined ? 'an unknown part' : `${(100 * share).toFixed(0)} %`;
}

test('thousands of small commits a second with default autocheckpoints are followed without a single gap', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const writer = await stage.writer({ paused: true, sizes: [[1, 1, 1]], rate: RATE });
  await writer.command('step 500');
  const replication = await stage.replicate();
  await replication.firstPut();
  await writer.resume();
  await sleep(LONG ? 20_000 : 3000);
  await writer.pause();
  const starvation = replication.starvation();
  // Stopped before the application closes the database: what is counted are gaps while it was open.
  await replication.stop();
  const restarts = walRestarts(stage.database);
  const report = await writer.stop();
  t.diagnostic(`${report.commits} commits, ${restarts} WAL restarts, ${gapsIn(replication).length} gaps`);
  const proof = await stage.prove();
  t.diagnostic(`${proof.proven} of ${proof.txids} TXIDs proven`);
  assert.ok(restarts > 3);
  assert.ok(proof.txids > 5);
  // A follower that others keep from running for longer than a generation of the WAL lives has to have gaps.
  if (starvation === undefined || starvation > STARVED) {
    t.diagnostic(`gaps not judged: the follower waited for a processor ${percent(starvation)} of the time`);
  } else assert.deepEqual(gapsIn(replication), []);
  assert.equal(report.busy, 0);
});
