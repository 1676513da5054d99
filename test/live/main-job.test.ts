/** The main job through the real program: a database that is written all the while, to a folder and to NATS, and back. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { jetlite, startJetlite } from '../cli/run.js';
import { CaptureStage } from '../support/capture-stage.js';
import { realLitestream } from '../support/litestream.js';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { firstDifference, proveState } from '../support/oracle/check.js';
import { sqliteShell } from '../support/sqlite.js';

/** Frames are checkpointed every now and then, and some are left in the WAL at any time. */
const WORK = { autocheckpoint: 200, rate: 300, seed: 7 } as const;

type Home = (t: TestContext, stage: CaptureStage, name: string) => Promise<string | undefined>;

const HOMES: Record<string, Home> = {
  'a folder': async (_t, stage, name) => join(stage.folder, name),
  NATS: async (t, _stage, name) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server, name);
    return `${server.url}/${name}`;
  },
};

async function succeeds(...args: string[]): Promise<void> {
  const { exitCode, stderr } = await jetlite(args);
  assert.equal(exitCode, 0, stderr);
}

for (const [home, open] of Object.entries(HOMES)) {
  test(`a backup to ${home} while the database is written is a state that was committed`, async (t) => {
    const stage = await CaptureStage.open(t);
    const replica = stage && (await open(t, stage, 'once'));
    if (stage === undefined || replica === undefined) return;
    const writer = await stage.writer(WORK);
    for (const round of ['first', 'second']) {
      await delay(700);
      await succeeds('backup', stage.database, replica);
      const output = join(stage.folder, `${round}.db`);
      await succeeds('restore', replica, '-o', output);
      const { seq, digest } = await proveState(output);
      assert.equal(stage.ledger().digestOf(seq), digest, `${round} backup, at commit ${seq}`);
    }
    const { commits } = await writer.stop();
    await succeeds('backup', stage.database, replica);
    const output = join(stage.folder, 'last.db');
    await succeeds('restore', replica, '-o', output);
    assert.equal(await firstDifference(stage.database, output), undefined);
    t.diagnostic(`${commits} commits meanwhile`);
  });

  test(`what is replicated to ${home} is restored by Jetlite and by Litestream, byte for byte`, async (t) => {
    const litestream = realLitestream(t);
    const stage = litestream && (await CaptureStage.open(t));
    const replica = stage && (await open(t, stage, 'steady'));
    if (litestream === undefined || stage === undefined || replica === undefined) return;
    const writer = await stage.writer(WORK);
    const replication = startJetlite(['replicate', stage.database, replica]);
    t.after(() => replication.child.kill('SIGKILL'));
    await replication.shows(/replicating/);
    await delay(2500);
    await writer.stop();
    replication.child.kill('SIGTERM');
    const { exitCode, stderr } = await replication.ended;
    assert.equal(exitCode, 0, stderr);

    const ours = join(stage.folder, 'ours.db');
    const theirs = join(stage.folder, 'theirs.db');
    await succeeds('restore', replica, '-o', ours, '--integrity-check', 'full');
    await litestream.restore(replica, theirs);
    assert.equal(await firstDifference(stage.database, ours), undefined, 'by jetlite restore');
    assert.equal(await firstDifference(stage.database, theirs), undefined, 'by litestream restore');
    const { proven, txids } = await stage.prove({ replica, limit: 6 });
    t.diagnostic(`${proven} of ${txids} TXIDs proven`);
  });

  test(`what Litestream replicates to ${home} is restored by Jetlite`, async (t) => {
    const litestream = realLitestream(t);
    const sqlite3 = litestream && sqliteShell(t);
    const stage = sqlite3 && (await CaptureStage.open(t));
    const replica = stage && (await open(t, stage, 'theirs'));
    if (litestream === undefined || sqlite3 === undefined || stage === undefined || replica === undefined)
      return;
    const writer = await stage.writer({ ...WORK, autocheckpoint: 0 });
    const replication = await litestream.replicate(stage.database, replica);
    await delay(3500);
    await writer.stop();
    await delay(1500);
    await replication.stop();

    const ours = join(stage.folder, 'ours.db');
    const theirs = join(stage.folder, 'theirs.db');
    await succeeds('restore', replica, '-o', ours);
    await litestream.restore(replica, theirs);
    assert.equal(await firstDifference(theirs, ours), undefined);
    assert.deepEqual(await sqlite3.differences(stage.database, ours), []);
  });
}
