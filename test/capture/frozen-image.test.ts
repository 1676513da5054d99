import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FrozenImage, Otherwise } from '../../lib/capture/frozen-image.js';
import { ImageSpoilt } from '../../lib/capture/image.js';
import { Application } from '../support/application.js';
import { CapturedCopy } from '../support/captured-copy.js';
import { randomSource } from '../support/random.js';

const PAGE = 4096;
const TABLE = 'CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)';
const fill = (rows: number, bytes = 900): string =>
  `WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows}) INSERT INTO t(x) SELECT randomblob(${bytes}) FROM n`;

/** A database that nothing checkpoints by itself, and a copy that stands at its present state. */
async function begin(t: TestContext, ...pragmas: string[]) {
  const application = await Application.inScratchFolder(t);
  if (application === undefined) return undefined;
  await application.open({ pragmas: ['journal_mode=WAL', 'wal_autocheckpoint=0', ...pragmas] });
  await application.run(TABLE, fill(2000), 'PRAGMA wal_checkpoint(TRUNCATE)');
  const copy = CapturedCopy.of(t, application.path, { fileEvents: false });
  await copy.catchUp();
  return { application, copy };
}

/** The pages one after the other; `between` the chunks. */
async function collect(
  image: FrozenImage,
  between: () => Promise<void> = async () => {},
  otherwise?: Otherwise,
): Promise<Buffer> {
  const content = Buffer.alloc(image.pageCount * image.pageSize);
  for await (const { first, count, bytes } of image.runs(otherwise)) {
    content.set(bytes.subarray(0, count * image.pageSize), (first - 1) * image.pageSize);
    await between();
  }
  return content;
}

test('a frozen state is read while the application writes, checkpoints, restarts the WAL, shrinks and grows', async (t) => {
  const made = await begin(t, 'auto_vacuum=0');
  if (made === undefined) return;
  const { application, copy } = made;
  const random = randomSource(t);
  // A part of the state stands in the WAL only.
  await application.run(
    'UPDATE t SET x = randomblob(900) WHERE id % 5 = 0',
    'DELETE FROM t WHERE id % 7 = 0',
  );
  await copy.catchUp();
  for (let round = 0; round < 4; round++) {
    const state = Buffer.from(copy.content);
    const image = copy.capture.freeze()!;
    const changes = [
      `UPDATE t SET x = randomblob(900) WHERE id % ${2 + random.below(9)} = 0`,
      `DELETE FROM t WHERE id % ${2 + random.below(9)} = 0`,
      fill(300),
      'VACUUM',
    ];
    const content = await collect(image, async () => {
      if (!random.oneIn(3)) return;
      await application.run(random.pick(changes));
      await copy.catchUp();
      await application.run(`PRAGMA wal_checkpoint(${random.pick(['PASSIVE', 'TRUNCATE', 'RESTART'])})`);
    });
    image.close();
    assert.ok(content.equals(state), `round ${round}`);
    await application.run(fill(500));
    await copy.catchUp();
  }
  assert.deepEqual(copy.gaps, []);
});

test('a page that a checkpoint overwrote unseen spoils the image, unless it is had from elsewhere', async (t) => {
  const made = await begin(t);
  if (made === undefined) return;
  const { application, copy } = made;
  const state = Buffer.from(copy.content);
  const image = copy.capture.freeze()!;
  await application.run(
    'UPDATE t SET x = randomblob(900) WHERE id = 1900',
    'PRAGMA wal_checkpoint(TRUNCATE)',
  );
  await copy.catchUp();
  await assert.rejects(collect(image), ImageSpoilt);

  const asked: number[] = [];
  const elsewhere: Otherwise = async (pgno, page) => {
    asked.push(pgno);
    page.set(state.subarray((pgno - 1) * PAGE, pgno * PAGE));
    return true;
  };
  assert.ok((await collect(image, undefined, elsewhere)).equals(state));
  assert.ok(asked.length > 0 && asked.length < 10, `${asked}`);
  await assert.rejects(
    collect(image, undefined, async (_pgno, page) => {
      page.fill(1);
      return true;
    }),
    ImageSpoilt,
    'another page is not believed',
  );
  image.close();
  assert.deepEqual(
    copy.events.filter(({ type }) => type === 'damage'),
    [],
  );
});

test('a database that was closed, and one in rollback mode, are frozen as long as their file stays', async (t) => {
  const made = await begin(t);
  if (made === undefined) return;
  const { application, copy } = made;
  await application.close();
  await copy.catchUp();
  const closed = copy.capture.freeze()!;
  assert.ok((await collect(closed)).equals(copy.content));
  await application.open({ pragmas: ['journal_mode=WAL'] });
  await application.run(fill(50));
  await copy.catchUp();
  assert.equal(copy.capture.freeze(), undefined, 'one at a time');
  closed.close();

  await application.run('PRAGMA journal_mode=DELETE');
  await copy.catchUp();
  const state = Buffer.from(copy.content);
  const image = copy.capture.freeze()!;
  assert.ok((await collect(image)).equals(state));
  await application.run('UPDATE t SET x = randomblob(900)');
  await copy.catchUp();
  await assert.rejects(collect(image), ImageSpoilt);
  image.close();
  assert.deepEqual(
    copy.events.filter(({ type }) => type === 'damage'),
    [],
  );
});

test('a page that the source lost without a commit is told of, and is not taken', async (t) => {
  const made = await begin(t);
  if (made === undefined) return;
  const { application, copy } = made;
  await application.run('UPDATE t SET x = randomblob(900) WHERE id < 100');
  await copy.catchUp();
  const image = copy.capture.freeze()!;
  const file = await open(application.path, 'r+');
  await file.write(Buffer.alloc(100, 7), 0, 100, 300 * PAGE + 1000);
  await file.close();
  const stop = new AbortController();
  const following = (async () => {
    while (!stop.signal.aborted) {
      await copy.capture.poll();
      await sleep(5);
    }
  })();
  await assert.rejects(collect(image), ImageSpoilt);
  stop.abort();
  await following;
  image.close();
  const told = copy.events.filter(({ type }) => type === 'damage');
  assert.equal(told.length, 1);
  assert.match(told[0].message, /page 301 is not what was last committed/);
});

test('nothing can be frozen while commits are pending or a gap is open', async (t) => {
  const made = await begin(t);
  if (made === undefined) return;
  const { application, copy } = made;
  await application.run(fill(10));
  const polling = copy.capture.poll();
  assert.equal(copy.capture.freeze(), undefined);
  await polling;
  assert.equal(copy.capture.freeze(), undefined);
  copy.take();
  const image = copy.capture.freeze()!;
  assert.ok((await collect(image)).equals(copy.content));
  image.close();
});
