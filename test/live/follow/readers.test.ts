/** Readers of a live copy while it follows, is killed and goes on: what they see is checked read by read. */

import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Started, startJetlite } from '../../cli/run.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { CopyReader } from '../../support/copy-reader.js';
import { proveState } from '../../support/oracle/check.js';
import { peer } from '../../support/peers.js';
import { randomSource } from '../../support/random.js';

const BATCHES = LONG ? 2000 : 60;
const KILLS = LONG ? 10 : 2;
/** Enough pages a batch for the WAL to be emptied on the way. */
const WORK = {
  rows: [150, 400],
  payload: [500, 3000],
  rate: 50,
  autocheckpoint: 200,
  vacuumEvery: 150,
  seed: 3,
} as const;

async function followIt(t: TestContext, stage: CaptureStage, copy: string, node?: string): Promise<Started> {
  const args = ['restore', stage.replica, '-o', copy, '-f', '--log-level', 'debug'];
  const follower = startJetlite(args, { node });
  t.after(() => follower.child.kill('SIGKILL'));
  await follower.shows(/ follows /);
  return follower;
}

/** Applied batches, by what it said. */
function appliedBy(stderr: string): number {
  return stderr.match(/stands at TXID/g)?.length ?? 0;
}

/** Checkpoints, likewise. */
function emptiedBy(stderr: string): number {
  return stderr.match(/emptied the WAL/g)?.length ?? 0;
}

for (const node of ['this Node', 'Node 22'] as const) {
  test(`${node}: readers see whole committed states, never back in time, while the follower is killed and goes on`, async (t) => {
    const program = node === 'Node 22' ? peer(t, 'node22') : process.execPath;
    const stage = program && (await CaptureStage.open(t));
    if (!program || !stage) return;
    const random = randomSource(t);
    const writer = await stage.writer(WORK);
    const replication = await stage.replicate();
    await replication.firstPut();
    const copy = join(stage.folder, 'copy.db');
    let follower = await followIt(t, stage, copy, program);
    const ledger = stage.ledgerPath;
    const readers = await Promise.all(
      [0, 0.01, 0.15].map((pause) => CopyReader.start(t, copy, ledger, pause)),
    );
    let applied = 0;
    let checkpoints = 0;
    let largestWal = 0;
    for (let kills = 0; applied < BATCHES; kills++) {
      const share = BATCHES / (KILLS + 1);
      for (let last = kills === KILLS; ; ) {
        await delay(20 + random.below(30));
        largestWal = Math.max(largestWal, (await stat(`${copy}-wal`)).size);
        const { stderr } = follower.said;
        assert.equal(follower.child.exitCode, null, stderr);
        if (last && node === 'Node 22' && checkpoints + emptiedBy(stderr) === 0) continue;
        if (appliedBy(stderr) >= (last ? BATCHES - applied : share)) break;
      }
      const doomed = await CopyReader.start(t, copy, ledger, 0.05);
      if (kills < KILLS) {
        follower.child.kill('SIGKILL');
        await follower.ended.catch(() => undefined);
      }
      await doomed.kill();
      applied += appliedBy(follower.said.stderr);
      checkpoints += emptiedBy(follower.said.stderr);
      if (kills < KILLS) follower = await followIt(t, stage, copy, program);
      else break;
    }
    const { seq } = await writer.stop();
    await replication.stop();
    const readings = [];
    for (const reader of readers) readings.push(await reader.stop());
    for (const { wrong } of readings) assert.deepEqual(wrong, []);
    follower.child.kill('SIGTERM');
    const { exitCode, stderr } = await follower.ended;
    assert.equal(exitCode, 0, stderr);
    assert.doesNotMatch(stderr, /WARN .*(removed or cut|stays at)|ERROR/);
    const again = await followIt(t, stage, copy, program);
    again.child.kill('SIGTERM');
    assert.equal((await again.ended).exitCode, 0);
    assert.equal((await proveState(copy)).seq, seq);
    const reads = readings.map((one) => `${one.reads} reads of ${one.states} states`).join(', ');
    t.diagnostic(`${applied} batches, ${checkpoints} checkpoints, WAL up to ${largestWal} bytes; ${reads}`);
  });
}
