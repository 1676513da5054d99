/**
 * A checkpoint writes pages into the database while it is being read. What the index says of checkpoints (how far one has
 * got, how far one has tried) lies outside the header's checksum and can be of another generation than the header read
 * with it: after a restart it says that none ever ran. Whoever goes by it takes torn images for whole.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { craftIndex, overwrite, readIndex } from '../../support/wal-files.js';

const ROWS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)';
const EACH = 'UPDATE t SET x = randomblob(3000)';

/** A database of a few chunks, all of it in the file, and a WAL that the next commit restarts. */
async function application(t: TestContext): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas: ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'] });
  await app.run(
    'CREATE TABLE t(id INTEGER PRIMARY KEY, x)',
    `INSERT INTO t ${ROWS} SELECT i, randomblob(3000) FROM n`,
  );
  await app.run('PRAGMA wal_checkpoint(RESTART)', 'UPDATE t SET x = 1 WHERE id = 1');
  return app;
}

/** What a writer does while the image is read, from one look at the index to the next. */
const MEANWHILE: Record<string, readonly string[]> = {
  'a commit and a checkpoint': [EACH, 'PRAGMA wal_checkpoint(PASSIVE)'],
  'a commit, a checkpoint and a restart': [
    EACH,
    'PRAGMA wal_checkpoint(PASSIVE)',
    'UPDATE t SET x = 2 WHERE id = 1',
  ],
  'a commit, a checkpoint that empties the WAL, and more': [EACH, 'PRAGMA wal_checkpoint(TRUNCATE)', EACH],
  'two restarts': [
    EACH,
    'PRAGMA wal_checkpoint(RESTART)',
    EACH,
    'PRAGMA wal_checkpoint(RESTART)',
    'UPDATE t SET x = 3 WHERE id = 1',
  ],
  'a database that shrinks': ['DELETE FROM t WHERE id > 5', 'VACUUM', 'PRAGMA wal_checkpoint(TRUNCATE)'],
  'a database that grows': [
    `INSERT INTO t ${ROWS} SELECT i + 1000, randomblob(3000) FROM n`,
    'PRAGMA wal_checkpoint',
  ],
};

for (const [what, statements] of Object.entries(MEANWHILE)) {
  for (const streamed of [false, true]) {
    test(`${what} while ${streamed ? 'an image is handed on' : 'an image is taken'}`, async (t) => {
      const app = await application(t);
      if (!app) return;
      const before = { file: readFileSync(app.path), index: readIndex(`${app.path}-shm`) };
      let writing: Promise<unknown> | undefined;
      const interfere = (): void => {
        if (writing !== undefined) return;
        writing = app.run(...statements);
        // Its process has the time to do it all before the next read; we are not to look meanwhile.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
      };
      const copy = CapturedCopy.of(t, app.path, { onProgress: interfere });
      if (streamed) await copy.stream(async () => interfere());
      await copy.catchUp();
      await writing;
      await copy.catchUp();
      await copy.assertEquals(app);
      if (what !== 'a commit, a checkpoint and a restart') return;
      const { backfillAttempted } = readIndex(`${app.path}-shm`);
      assert.notDeepEqual(readFileSync(app.path), before.file, 'a checkpoint wrote to it');
      assert.deepEqual(
        [before.index.backfillAttempted, backfillAttempted],
        [0, 0],
        'the naive rule: none ran',
      );
    });
  }
}

test('marks of checkpoints that cannot be true change nothing', async (t) => {
  const app = await application(t);
  if (!app) return;
  await app.run(EACH);
  const shm = `${app.path}-shm`;
  const index = readIndex(shm);
  for (const [backfill, backfillAttempted] of [
    [0, 0],
    [0, index.maxFrame + 1000],
    [index.maxFrame, 0],
    [0xffffffff, 0xffffffff],
  ] as const) {
    overwrite(shm, craftIndex({ ...index, backfill, backfillAttempted }));
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    overwrite(shm, craftIndex(index));
    await copy.assertEquals(app);
  }
});
