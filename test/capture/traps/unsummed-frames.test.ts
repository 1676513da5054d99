/**
 * SQLite up to 3.50.1 commits frames without salts and checksums when a savepoint is rolled back after pages have spilled.
 * Its readers, who go by the index, see these commits like any other.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { readIndex } from '../../support/wal-files.js';

const PRAGMAS = [
  'page_size=512',
  'journal_mode=wal',
  'wal_autocheckpoint=0',
  'synchronous=off',
  'cache_size=4',
];

/** Frames up to the horizon that carry no salts. */
function unsummed(path: string): number {
  const wal = readFileSync(`${path}-wal`);
  const { maxFrame, pageSize } = readIndex(`${path}-shm`);
  let count = 0;
  for (let frame = 0; frame < maxFrame; frame++) {
    if (wal.readBigUInt64BE(32 + frame * (24 + pageSize) + 8) === 0n) count++;
  }
  return count;
}

/** Pages spill and spill again in their places; what is written after the rollback comes before those places. */
async function commitUnsummed(app: Application, n: number): Promise<void> {
  await app.run(
    'BEGIN',
    'SAVEPOINT s',
    `UPDATE t SET body = zeroblob(${401 + n}) WHERE id BETWEEN 9 AND 15`,
    `UPDATE t SET body = zeroblob(${402 + n}) WHERE id BETWEEN 10 AND 12`,
    'ROLLBACK TO s',
    `INSERT INTO t(body) VALUES ('in the same transaction ${n}')`,
    'COMMIT',
  );
}

test('frames that SQLite committed without a checksum are followed', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: PRAGMAS });
  await app.run(
    'CREATE TABLE t(id INTEGER PRIMARY KEY, body)',
    'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO t SELECT i, randomblob(400) FROM n',
  );
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  await commitUnsummed(app, 0);
  const [[version]] = await app.run('SELECT sqlite_version()');
  if (unsummed(app.path) === 0) return t.skip(`SQLite ${version} sums every frame`);
  await copy.catchUp();
  await copy.assertEquals(app);
  await app.run("INSERT INTO t(body) VALUES ('after')");
  await copy.catchUp();
  await copy.assertEquals(app);
  const late = CapturedCopy.of(t, app.path);
  await late.catchUp();
  await late.assertEquals(app);
  // Several at one look, in a generation that is crossed into.
  await app.run('PRAGMA wal_checkpoint(PASSIVE)');
  for (let n = 1; n < 4; n++) await commitUnsummed(app, n);
  await app.run("INSERT INTO t(body) VALUES ('at last')");
  await copy.catchUp();
  await copy.assertEquals(app);
  assert.deepEqual(copy.gaps, []);
});
