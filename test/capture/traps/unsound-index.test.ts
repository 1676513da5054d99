/**
 * Index headers that are no headers: cut short by whoever opens the database first, zeroed, torn by a writer that died, or
 * another database's. Whoever takes what they say takes a state that never was, or none at all.
 */
import assert from 'node:assert/strict';
import { readFileSync, truncateSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { recovered } from '../../support/truth.js';
import { craftIndex, type IndexHeader, overwrite, readIndex } from '../../support/wal-files.js';

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const insert = (text: string) => `INSERT INTO t VALUES ('${text}')`;

type Spoil = (shm: string) => void;
const change =
  (to: Partial<IndexHeader>): Spoil =>
  (shm) =>
    overwrite(shm, craftIndex({ ...readIndex(shm), ...to }));

const SPOILT: Record<string, Spoil> = {
  'cut to 3 bytes': (shm) => truncateSync(shm, 3),
  'shorter than its header': (shm) => truncateSync(shm, 100),
  empty: (shm) => truncateSync(shm, 0),
  zeroed: (shm) => overwrite(shm, Buffer.alloc(136)),
  // A writer puts the second copy first: as if it had been killed before the first.
  'torn between two commits': (shm) => {
    const { maxFrame } = readIndex(shm);
    const [older, newer] = [readFileSync(shm), craftIndex({ ...readIndex(shm), maxFrame: maxFrame + 1 })];
    overwrite(shm, Buffer.concat([older.subarray(0, 48), newer.subarray(48, 96)]));
  },
  'wrong by a checksum': (shm) => {
    const bytes = readFileSync(shm);
    bytes[8]!++;
    overwrite(shm, Buffer.concat([bytes.subarray(0, 48), bytes.subarray(0, 48)]));
  },
  'of another database, with frames': change({ salt1: 1, salt2: 2, maxFrame: 1, pageCount: 1 }),
  'of another database, without frames': change({ salt1: 1, salt2: 2, maxFrame: 0, pageCount: 1 }),
  'with salts drawn anew, as after a restart': (shm) =>
    change({ salt1: (readIndex(shm).salt1 + 1) >>> 0, salt2: 2, maxFrame: 0 })(shm),
  'of another page size': change({ pageSize: 1024 }),
  'behind the WAL that is there': (shm) => change({ maxFrame: readIndex(shm).maxFrame + 7 })(shm),
  'with another checksum at its last frame': change({ checksum: [1, 2] }),
};

async function abandoned(t: TestContext, ...more: string[]): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas: PRAGMAS });
  await app.run(
    'CREATE TABLE t(x)',
    insert('one'),
    'PRAGMA wal_checkpoint(PASSIVE)',
    insert('two'),
    insert('three'),
  );
  await app.run('SELECT 1', ...more);
  return app;
}

// Most of them wait until the index has stood still for long enough: all at once.
describe('an index that is none', { concurrency: true }, () => {
  for (const [what, spoil] of Object.entries(SPOILT)) {
    test(`${what}: before the first image, and once somebody opens the database`, async (t) => {
      const app = await abandoned(t);
      if (!app) return;
      await app.kill();
      spoil(`${app.path}-shm`);
      const copy = CapturedCopy.of(t, app.path, { fileEvents: false });
      await copy.catchUp();
      copy.assertIs(await recovered(t, app.path));
      const next = app.another(t);
      await next.open({ pragmas: PRAGMAS });
      await next.run(insert('four'));
      await copy.catchUp();
      await copy.assertEquals(next);
    });
  }
});

for (const what of ['cut to 3 bytes', 'zeroed', 'torn between two commits'] as const) {
  for (const fileEvents of [true, false]) {
    const how = fileEvents ? 'with file events' : 'by the clock';
    test(`an index ${what} while it is followed: nothing is lost when it is rebuilt, ${how}`, async (t) => {
      const app = await abandoned(t);
      if (!app) return;
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      const before = Buffer.from(copy.content);
      await app.run(insert('unseen'), insert('unseen, too'));
      await app.kill();
      SPOILT[what]!(`${app.path}-shm`);
      // In the middle of somebody's opening it: looked at again, not acted upon.
      assert.equal(await copy.capture.poll(), 'wait');
      assert.equal(copy.take(), undefined);
      copy.assertIs(before);
      const next = app.another(t);
      await next.open({ pragmas: PRAGMAS });
      await next.run(insert('four'), insert('five'));
      await copy.catchUp();
      await copy.assertEquals(next);
    });
  }
}

for (const [what, pageCount] of [
  ['smaller', 1],
  ['larger', 50],
] as const) {
  test(`an index that stands beside an empty WAL of a ${what} database does not tell the size`, async (t) => {
    const app = await abandoned(
      t,
      'CREATE TABLE more AS SELECT randomblob(20000)',
      'PRAGMA wal_checkpoint(TRUNCATE)',
    );
    if (!app) return;
    await app.kill();
    const shm = `${app.path}-shm`;
    overwrite(shm, craftIndex({ ...readIndex(shm), pageCount, salt1: 1, salt2: 2 }));
    const copy = CapturedCopy.of(t, app.path, { fileEvents: false });
    await copy.catchUp();
    copy.assertIs(await recovered(t, app.path));
  });
}

test('the size of a database whose WAL held nothing at recovery is the one in its header', async (t) => {
  const app = await abandoned(t, 'PRAGMA wal_checkpoint(TRUNCATE)');
  if (!app) return;
  await app.kill();
  const next = app.another(t);
  await next.open();
  await next.run('SELECT * FROM t');
  assert.equal(readIndex(`${app.path}-shm`).pageCount, 0, 'the naive rule: a database of no pages');
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  await copy.assertEquals(next);
  assert.ok(copy.content.length > 0);
});

test('a half-changed index of one database does not keep another from being found abandoned', async (t) => {
  const [first, second] = [await abandoned(t), await abandoned(t)];
  if (!first || !second) return;
  await first.kill();
  truncateSync(`${first.path}-shm`, 3);
  const copies = [CapturedCopy.of(t, first.path), CapturedCopy.of(t, second.path)];
  const deadline = performance.now() + 6000;
  while ((await copies[0]!.capture.poll().catch(() => 'wait')) === 'wait') {
    await second.run(insert('busy'));
    await copies[1]!.catchUp();
    assert.ok(performance.now() < deadline, 'still waiting');
    await sleep(2);
  }
  copies[0]!.take();
  copies[0]!.assertIs(await recovered(t, first.path));
});
