import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { backup } from '../../lib/jobs/backup.js';
import { restore } from '../../lib/jobs/restore.js';
import { verify } from '../../lib/jobs/verify.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { realLitestream } from '../support/litestream.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

const TABLE =
  'PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t(x);';
const STEPS = [
  'INSERT INTO t(x) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT hex(randomblob(30)) FROM n;',
  "UPDATE t SET x = 'changed' WHERE id % 50 = 0;",
  'DELETE FROM t WHERE id > 500;',
  'VACUUM;',
  'INSERT INTO t(x) SELECT hex(randomblob(100)) FROM t;',
  'CREATE TABLE other AS SELECT * FROM t;',
];

test('what Litestream wrote, merged and snapshotted comes back as Litestream brings it back, at every TXID', async (t) => {
  const litestream = realLitestream(t);
  const shell = sqliteShell(t);
  if (litestream === undefined || shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const replicaFolder = join(folder, 'replica');
  await shell.run(database, TABLE);
  const running = await litestream.replicate(database, replicaFolder, { snapshotInterval: '2s' });
  for (const step of STEPS) {
    // Litestream locks the database now and then.
    await shell.run(database, `.timeout 20000\n${step}`);
    await delay(700); // So that Litestream sees several states, and merges some of them.
  }
  await running.stop();

  const replica = await openFileReplica(replicaFolder);
  const files = await replica.list();
  const levels = new Set(files.map((file) => file.level));
  assert.ok(levels.has(0) && levels.has(1) && levels.has(9), `levels ${[...levels].join(', ')}`);
  const [ours, theirs] = [join(folder, 'ours.db'), join(folder, 'theirs.db')];
  const txids = files.filter((file) => file.level === 0).map((file) => file.maxTxid);
  assert.ok(txids.length > 3, `only ${txids.length} TXIDs`);
  for (const txid of txids) {
    await restore({ replica, output: ours, txid, force: true });
    await rm(theirs, { force: true });
    await litestream.restore(replicaFolder, theirs, { txid: formatTxid(txid) });
    assert.ok((await readFile(ours)).equals(await readFile(theirs)), `TXID ${txid}`);
  }
  const rows = await shell.run(database, 'SELECT count(*), sum(length(x)) FROM t;');
  const result = await verify({
    replica,
    queries: [{ sql: 'SELECT count(*), sum(length(x)) FROM t', expect: rows.trim() }],
  });
  assert.deepEqual(result.findings, []);
});

test('what we wrote Litestream restores to the same bytes, at every TXID', async (t) => {
  const litestream = realLitestream(t);
  const shell = sqliteShell(t);
  if (litestream === undefined || shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const replicaFolder = join(folder, 'replica');
  const replica = await openFileReplica(replicaFolder);
  await shell.run(database, TABLE);
  for (const step of STEPS) {
    await shell.run(database, step);
    await backup({ database, replica });
  }
  const [ours, theirs] = [join(folder, 'ours.db'), join(folder, 'theirs.db')];
  for (const { maxTxid: txid } of await replica.list(0)) {
    await restore({ replica, output: ours, txid, force: true });
    await rm(theirs, { force: true });
    await litestream.restore(replicaFolder, theirs, { txid: formatTxid(txid) });
    assert.ok((await readFile(ours)).equals(await readFile(theirs)), `TXID ${txid}`);
  }
});
