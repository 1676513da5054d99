/**
 * An index that a killed application left behind says of which commits a checkpoint may have pages written: of those up to
 * its last frame. Whoever has the database in exclusive locking mode since checkpoints his own, which it does not show. With
 * his locks not to be seen it may be taken for one that governs, and then the database that is read is torn.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { mock, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageSpoilt } from '../../../lib/capture/image.js';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { craftIndex, overwrite, parseWal, readIndex } from '../../support/wal-files.js';

const read = fs.readFileSync;
mock.method(fs, 'readFileSync', (...args: Parameters<typeof fs.readFileSync>) =>
  args[0] === '/proc/locks' ? '' : read(...args),
);

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const ROWS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)';
const INSERT = `INSERT INTO t ${ROWS} SELECT NULL, randomblob(3000) FROM n`;
const UPDATE = 'UPDATE t SET x = randomblob(3000) WHERE id > 1';
const FIRST = 'UPDATE t SET x = randomblob(3000) WHERE id = 1';
/** What is left behind, by what was done last. */
const LEFT = {
  'a restart': ['PRAGMA wal_checkpoint(TRUNCATE)', FIRST, 'PRAGMA wal_checkpoint(PASSIVE)'],
  'an emptied WAL': ['PRAGMA wal_checkpoint(TRUNCATE)'],
  frames: ['PRAGMA wal_checkpoint(TRUNCATE)', FIRST],
};

/** Has committed once, in exclusive locking mode, beside an index that was left behind. */
async function committedBeside(
  t: TestContext,
  left: keyof typeof LEFT,
  commit: string,
): Promise<Application | undefined> {
  const first = await Application.inScratchFolder(t);
  if (!first) return undefined;
  await first.open({ pragmas: PRAGMAS });
  await first.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', INSERT, ...LEFT[left]);
  await first.kill();
  if (left === 'a restart') publishRestart(`${first.path}-shm`);
  const app = first.another(t);
  await app.open({ pragmas: ['locking_mode=exclusive', ...PRAGMAS] });
  const index = readIndex(`${app.path}-shm`);
  await app.run(commit);
  assert.deepEqual(readIndex(`${app.path}-shm`), index, 'nobody uses it');
  return app;
}

/** As who dies before he writes anything under it. */
function publishRestart(shm: string): void {
  const index = readIndex(shm);
  const [salt1, salt2] = [(index.salt1 + 1) >>> 0, (index.salt2 ^ 1) >>> 0];
  overwrite(shm, craftIndex({ ...index, maxFrame: 0, salt1, salt2, backfill: 0, backfillAttempted: 0 }));
}

/** The first half of what a checkpoint of the last commit writes. */
function beginCheckpoint(app: Application): void {
  const { pageSize, frames } = parseWal(read(`${app.path}-wal`));
  const ends = frames.flatMap(({ commit }, at) => (commit > 0 ? [at] : []));
  const pages = new Map<number, Uint8Array>();
  for (const { pgno, page } of frames.slice((ends.at(-2) ?? -1) + 1)) pages.set(pgno, page);
  const ascending = [...pages].sort(([a], [b]) => a - b);
  const database = fs.openSync(app.path, 'r+');
  for (const [pgno, page] of ascending.slice(0, ascending.length / 2)) {
    fs.writeSync(database, page, 0, pageSize, (pgno - 1) * pageSize);
  }
  fs.closeSync(database);
}

for (const left of ['a restart', 'an emptied WAL', 'frames'] as const) {
  for (const [what, commit] of [
    ['changed pages', UPDATE],
    ['added pages', INSERT],
  ] as const) {
    test(`no image is made of a database to which half of a commit that ${what} was copied, beside an index of ${left}`, async (t) => {
      const app = await committedBeside(t, left, commit);
      if (!app) return;
      beginCheckpoint(app);
      await sleep(30);
      const copy = CapturedCopy.of(t, app.path);
      assert.equal(await copy.stream(), false);
      await assert.rejects(copy.capture.poll(), { code: 'CAPTURE' });
      await app.run('PRAGMA wal_checkpoint(PASSIVE)');
      // With frames in the index it takes another commit to see that they are not the last ones.
      if (left === 'frames') await app.run(UPDATE);
      await copy.catchUp();
      await copy.assertEquals(app);
    });
  }
}

test('no damage is told of where a commit that the index does not show was copied', async (t) => {
  const first = await Application.inScratchFolder(t);
  if (!first) return;
  await first.open({ pragmas: PRAGMAS });
  await first.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', INSERT, ...LEFT.frames);
  await first.kill();
  const app = first.another(t);
  await app.open({ pragmas: ['locking_mode=exclusive', ...PRAGMAS] });
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  await app.run(UPDATE, 'PRAGMA wal_checkpoint(PASSIVE)');
  const looking = setInterval(() => copy.capture.poll().catch(() => {}), 10);
  t.after(() => clearInterval(looking));
  while (!copy.capture.undecided) await sleep(20);
  let image = copy.capture.freeze();
  while (image === undefined) {
    await sleep(1);
    image = copy.capture.freeze();
  }
  await assert.rejects(async () => {
    for await (const _ of image.runs());
  }, ImageSpoilt);
  assert.deepEqual(
    copy.events.filter(({ type }) => type === 'damage'),
    [],
  );
});
