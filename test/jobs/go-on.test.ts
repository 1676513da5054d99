/** Going on with a replica: what an earlier run left counts only where the replica shows that it belongs to it. */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { restore } from '../../lib/jobs/restore.js';
import { openReplica } from '../../lib/replica/open.js';
import { assertRefused, jetlite } from '../cli/run.js';
import { CaptureStage } from '../support/capture-stage.js';
import { firstDifference } from '../support/oracle/check.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

test('page sums of a replica that was thrown away are not taken for those of the one that took its place', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ paused: true, sizes: [[1, 5, 50]] });
  const { database } = stage;
  const output = join(stage.folder, 'restored.db');
  for (let round = 0; round < 5; round++) {
    await writer.command('step 3');
    const replica = await openReplica(stage.replica);
    const { txid } = await backup({ database, replica });
    assert.equal(txid, BigInt(round + 1));
  }
  await rm(stage.replica, { recursive: true });

  // The new chain is shorter: killed before it saved its sums, it leaves its position and the old sums.
  const killed = await stage.replicate();
  await killed.firstPut();
  const put = killed.nextPut();
  await writer.command('step 2');
  await put;
  await killed.kill();
  const replica = await openReplica(stage.replica);
  t.after(() => replica.close());
  // TXIDs follow one another, above those of the old chain: each is a file, and none was skipped.
  for (let round = 0; round < 2; round++) {
    const { txid } = await backup({ database, replica });
    const files = await replica.list(0);
    assert.equal(txid - files[0].minTxid + 1n, BigInt(files.length));
    await writer.command('step 2');
  }
  await writer.stop();
  await backup({ database, replica });
  await restore({ replica, output });
  assert.equal(await firstDifference(database, output), undefined);
});

test('a backup beside a running replication of the same state is refused and touches nothing', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ rate: 100 });
  const replication = await stage.replicate();
  await replication.firstPut();
  const run = await jetlite(['backup', stage.database, stage.replica]);
  assertRefused(run, 1, /another process on this machine replicates .*nothing was touched/);
  await replication.nextPut();
  await writer.stop();
  await replication.stop();
  await stage.prove({ limit: 4 });
  assert.equal((await jetlite(['backup', stage.database, stage.replica])).exitCode, 0);
});

test('a database of another page size than its replica is refused, with and without what an earlier run left', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'app.db');
  const url = join(folder, 'replica');
  await shell.run(database, 'PRAGMA page_size = 4096; CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  assert.equal((await jetlite(['backup', database, url])).exitCode, 0);
  await shell.run(database, 'PRAGMA page_size = 8192; VACUUM; INSERT INTO t VALUES (2);');
  const replica = await openReplica(url);
  t.after(() => replica.close());
  const before = await replica.list();
  for (const state of ['left', 'gone']) {
    if (state === 'gone') await rm(join(folder, '.app.db-jetlite'), { recursive: true });
    for (const args of [['backup'], ['replicate', '--once']]) {
      const run = await jetlite([...args, database, url]);
      assertRefused(
        run,
        1,
        /has pages of 8192 bytes, the chain in .* pages of 4096\n.*use a new replica path/,
      );
    }
  }
  assert.deepEqual(await replica.list(), before);
  assert.equal((await jetlite(['backup', database, join(folder, 'other')])).exitCode, 0);
});
