/**
 * A chain that restore refuses is not gone on with: the replica gets the whole database anew, and can be restored. One that
 * restore accepts is gone on with.
 */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { PageSums } from '../../../lib/capture/page-sums.js';
import { backup } from '../../../lib/jobs/backup.js';
import { restore } from '../../../lib/jobs/restore.js';
import { writeSnapshotSums } from '../../../lib/jobs/tidy/snapshot-sums.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { jetlite } from '../../cli/run.js';
import type { Forgery } from '../../support/forged-ltx.js';
import { firstDifference } from '../../support/oracle/check.js';
import { scratchFolder } from '../../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../../support/sqlite.js';
import {
  BAD_FILES,
  CHANGE,
  change,
  filled,
  flipped,
  pageOne,
  putFiles,
  SNAPSHOT,
  snapshot,
} from '../bad-files.js';

const CONTRADICTED = BAD_FILES.filter(({ soundAlone }) => soundAlone);
const TIME = { timestampMs: 1_700_000_000_000 };

async function makeDatabase(shell: SqliteShell, folder: string): Promise<string> {
  const database = join(folder, 'app.db');
  await shell.run(database, 'PRAGMA page_size = 512; CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  return database;
}

/** As whoever made the snapshot put them beside it. */
async function putSums(replica: Replica, file: LtxFileInfo, folder: string): Promise<void> {
  const sums = new PageSums({ memoryBytes: 1 << 20, spillPath: join(folder, 'spill') });
  [pageOne(3), filled(2), filled(3)].forEach((page, i) => {
    sums.record(i + 1, page, 0, page.length);
  });
  const fileChecksum = snapshot().readBigUInt64BE(snapshot().length - 8);
  await writeSnapshotSums(replica, file, sums, { txid: file.maxTxid, fileChecksum }, 512);
  sums.close();
}

async function assertRestorable(replica: Replica, database: string, what: string): Promise<void> {
  const output = `${database}-restored`;
  await restore({ replica, output, force: true });
  assert.equal(await firstDifference(database, output), undefined, what);
}

for (const beside of ['nothing', 'page sums'] as const) {
  test(`files that contradict each other are not gone on with; beside the snapshot: ${beside}`, async (t) => {
    const shell = sqliteShell(t);
    if (shell === undefined) return;
    const folder = await scratchFolder(t);
    const database = await makeDatabase(shell, folder);
    for (const [i, bad] of CONTRADICTED.entries()) {
      const replica = await openFileReplica(join(folder, `${i}`));
      await putFiles(replica, bad);
      const [first] = await replica.list(SNAPSHOT.level);
      if (beside === 'page sums') await putSums(replica, first, folder);
      const events: string[] = [];
      const onEvent = ({ message }: { message: string }) => void events.push(message);
      const { kind, txid } = await backup({ database, replica, onEvent });
      assert.deepEqual([kind, txid], ['snapshot', 3n], bad.what);
      assert.match(events.join('\n'), bad.what === 'another name' ? /lost files/ : bad.says, bad.what);
      await assertRestorable(replica, database, bad.what);
      // Neither is it without what that run left.
      await rm(join(folder, '.app.db-jetlite'), { recursive: true });
      assert.equal((await backup({ database, replica, onEvent })).kind, 'unchanged', bad.what);
    }
  });
}

test('files of another database among its own do not make a replica that cannot be restored', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = await makeDatabase(shell, folder);
  const other = join(folder, 'other.db');
  const fill = (rows: number): string =>
    `CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t SELECT randomblob(300) FROM generate_series(1, ${rows});`;
  await shell.run(other, `PRAGMA page_size = 512; ${fill(100)}`);
  const replicas = ['of-app', 'of-other'].map((name) => join(folder, name));
  const ofOther = await openFileReplica(replicas[1]);
  await backup({ database: other, replica: ofOther });
  for (let i = 0; i < 2; i++) {
    await shell.run(other, fill(1));
    await backup({ database: other, replica: ofOther });
  }
  for (const keep of [true, false]) {
    for (const args of [['backup'], ['replicate', '--once']]) {
      await rm(replicas[0], { recursive: true, force: true });
      await rm(join(folder, '.app.db-jetlite'), { recursive: true, force: true });
      const replica = await openFileReplica(replicas[0]);
      await backup({ database, replica });
      for (const file of (await ofOther.list()).filter(({ minTxid }) => minTxid > 1n)) {
        const { level, minTxid, maxTxid, timestampMs } = file;
        await replica.write({ level, minTxid, maxTxid, timestampMs }, () => ofOther.read(file));
      }
      if (!keep) await rm(join(folder, '.app.db-jetlite'), { recursive: true });
      const { exitCode, stderr } = await jetlite([...args, database, replicas[0]]);
      assert.equal(exitCode, 0, stderr);
      assert.match(stderr, /ltx\/0\/0{15}2-0{15}2\.ltx, page \d+: expected every page from/);
      await assertRestorable(replica, database, `${args} ${keep}`);
    }
  }
});

const MERGED = { level: 1, minTxid: 2n, maxTxid: 2n };
const SHRUNK: Partial<Forgery> = { pages: [{ pgno: 2, page: filled(2) }], commit: 2 };

test('what restore goes around, or does not meet on its way, is no reason to begin anew', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = await makeDatabase(shell, folder);
  const grown = [2, 3, 4].map((pgno) => ({ pgno, page: filled(pgno) }));
  // The smaller file, and so the one that is tried.
  const hole = change({ pages: [{ pgno: 6, page: filled(6) }] });
  const putters: Record<string, (replica: Replica) => Promise<unknown>> = {
    'a snapshot leads over a contradiction': async (replica) => {
      await replica.write({ ...SNAPSHOT, ...TIME }, () => [snapshot()]);
      await replica.write({ ...CHANGE, ...TIME }, () => [change(SHRUNK)]);
      const whole = { level: 9, minTxid: 1n, maxTxid: 2n };
      await replica.write({ ...whole, ...TIME }, () => [snapshot({ maxTxid: 2n })]);
    },
    'a damaged file would contradict': async (replica) => {
      await putFiles(replica, { what: '', says: /./ });
      const damaged = flipped(hole, hole.length - 1);
      await replica.write({ ...MERGED, ...TIME }, () => [damaged]);
    },
    'its size changes beside a page 1': async (replica) => {
      await replica.write({ ...SNAPSHOT, ...TIME }, () => [snapshot()]);
      const pages = [{ pgno: 1, page: pageOne(4) }, ...grown];
      await replica.write({ ...CHANGE, ...TIME }, () => [change({ pages })]);
    },
    'its page 1 says nothing': async (replica) => {
      const pages = [1, 2, 3].map((pgno) => ({ pgno, page: filled(pgno) }));
      await replica.write({ ...SNAPSHOT, ...TIME }, () => [snapshot({ pages })]);
      await replica.write({ ...CHANGE, ...TIME }, () => [change({ pages: grown })]);
    },
  };
  for (const [what, put] of Object.entries(putters)) {
    for (const beside of ['nothing', 'page sums'] as const) {
      const name = `${what}; beside the snapshot: ${beside}`;
      const replica = await openFileReplica(join(folder, name));
      await put(replica);
      const first = (await replica.list(SNAPSHOT.level)).find(({ maxTxid }) => maxTxid === 1n)!;
      if (beside === 'page sums') await putSums(replica, first, folder);
      await restore({ replica, output: join(folder, 'there.db'), force: true });
      const { kind, txid } = await backup({ database, replica, allowOtherDatabase: true });
      assert.deepEqual([kind, txid], ['incremental', 3n], name);
      await assertRestorable(replica, database, name);
    }
  }
});
