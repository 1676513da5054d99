import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { realLitestream } from './litestream.js';
import { firstDifference } from './oracle/check.js';
import { scratchFolder } from './scratch.js';
import { sqliteShell } from './sqlite.js';

test("the shell throws SQLite's words, a session holds its transaction, and content is compared table by table", async (t) => {
  const sqlite = sqliteShell(t);
  if (!sqlite) return;
  const folder = await scratchFolder(t);
  const [a, b] = [join(folder, 'a.db'), join(folder, 'b.db')];
  const schema = `PRAGMA journal_mode = wal; CREATE TABLE "it's ""it""" (x, y TEXT); CREATE TABLE t (x PRIMARY KEY) WITHOUT ROWID;`;
  for (const database of [a, b]) {
    await sqlite.run(database, `${schema} INSERT INTO t VALUES (1), (2);`);
  }
  assert.deepEqual(await sqlite.differences(a, b), []);
  await assert.rejects(sqlite.run(a, 'SELECT * FROM nowhere;'), /no such table: nowhere/);

  const session = await sqlite.open(b);
  await session.run(`BEGIN; INSERT INTO "it's ""it""" VALUES (1, 'a');`);
  assert.deepEqual(await sqlite.differences(a, b), []);
  assert.deepEqual(await session.run('COMMIT; SELECT count(*), 7 FROM t;'), ['2|7']);
  assert.deepEqual(await sqlite.differences(a, b), ['table it\'s "it"']);
  await assert.rejects(session.run('INSERT INTO t VALUES (1);'), /UNIQUE constraint failed/);
  await session.run('CREATE INDEX i ON t (x);');
  await session.kill();
  assert.deepEqual(await sqlite.differences(a, b), ['schema', 'table it\'s "it"']);
});

test('litestream replicates to a folder and restores the newest state, a TXID and a moment', async (t) => {
  const sqlite = sqliteShell(t);
  const litestream = realLitestream(t);
  if (!sqlite || !litestream) return;
  const folder = await scratchFolder(t);
  const [source, replica] = [join(folder, 'source.db'), join(folder, 'replica')];
  await sqlite.run(source, 'PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1);');
  const replication = await litestream.replicate(source, replica);
  await replication.says('compaction complete');
  await sqlite.run(source, 'INSERT INTO t VALUES (2);');
  await replication.stop();

  const files = await litestream.files(replica);
  const last = files.filter((file) => file.level === 0).at(-1)!;
  assert.ok(files.some((file) => file.level === 1));
  const newest = join(folder, 'newest.db');
  await litestream.restore(replica, newest);
  await sqlite.run(source, 'PRAGMA wal_checkpoint(TRUNCATE);');
  assert.equal(await firstDifference(source, newest), undefined);
  const [byTxid, byTime] = [join(folder, 'txid.db'), join(folder, 'time.db')];
  await litestream.restore(replica, byTxid, { txid: '0000000000000001' });
  // It restores what is older than the moment; a folder's file has its time as its own.
  const { mtime } = await stat(join(replica, 'ltx/0', `${last.minTxid}-${last.maxTxid}.ltx`));
  assert.equal(`${mtime.toISOString().slice(0, 19)}Z`, last.timestamp);
  await litestream.restore(replica, byTime, { timestamp: mtime.toISOString() });
  assert.equal(await sqlite.run(byTxid, 'SELECT count(*) FROM t;'), '1\n');
  assert.equal(await sqlite.run(byTime, 'SELECT count(*) FROM t;'), '1\n');
  await assert.rejects(litestream.restore(replica, newest), /already exists/);
});
