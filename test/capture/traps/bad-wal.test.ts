/**
 * WAL files that are not as SQLite writes them. What SQLite would recover from them is what is taken, or there is an error
 * that says where they are wrong; a page that no commit left is never handed on.
 */
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { recovered } from '../../support/truth.js';
import { craftIndex, craftWal, overwrite, parseWal, readIndex } from '../../support/wal-files.js';

const PAGE_SIZE = 1024;
const FRAME_SIZE = 24 + PAGE_SIZE;
const PRAGMAS = [`page_size=${PAGE_SIZE}`, 'journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];

type Damage = (wal: Buffer) => Buffer;
const flip =
  (offset: number): Damage =>
  (wal) => {
    wal[offset]! ^= 0x40;
    return wal;
  };
const inFrame = (frame: number, offset: number): number => 32 + (frame - 1) * FRAME_SIZE + offset;

/** What recovery passes over, or stops at. */
const DAMAGED: Record<string, Damage> = {
  'with another magic': flip(0),
  'with a damaged header': flip(14),
  'with an impossible page size': (wal) => {
    wal.writeUInt32BE(1000, 8);
    return wal;
  },
  'zeroed from its beginning': (wal) => wal.fill(0, 0, 32),
  'with wrong salts in the middle': flip(inFrame(3, 10)),
  'with a broken chain in the middle': flip(inFrame(3, 500)),
  'with a wrong page number in the middle': flip(inFrame(3, 3)),
  'with a wrong page number in its first frame': flip(inFrame(1, 3)),
  'that ends inside a frame': (wal) => wal.subarray(0, wal.length - 100),
  'that ends inside its first frame': (wal) => wal.subarray(0, 32 + 500),
  'that ends inside its header': (wal) => wal.subarray(0, 20),
  'with the frames of another WAL behind its own': (wal) => {
    const parsed = parseWal(wal);
    const other = craftWal({ ...parsed, salt1: 7, salt2: 8 });
    return Buffer.concat([wal.subarray(0, inFrame(3, 0)), other.subarray(inFrame(3, 0))]);
  },
  'whose last frame commits nothing': (wal) => {
    const parsed = parseWal(wal);
    const last = parsed.frames.length - 1;
    const frames = parsed.frames.map((frame, i) => (i === last ? { ...frame, commit: 0 } : frame));
    return craftWal({ ...parsed, frames });
  },
};

async function killed(t: TestContext): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas: PRAGMAS });
  await app.run('CREATE TABLE t(x)', "INSERT INTO t VALUES ('one')", 'PRAGMA wal_checkpoint(TRUNCATE)');
  for (let n = 0; n < 5; n++) await app.run(`INSERT INTO t VALUES (${n})`);
  await app.kill();
  return app;
}

describe('a WAL that is damaged', { concurrency: true }, () => {
  for (const [what, damage] of Object.entries(DAMAGED)) {
    for (const withIndex of [true, false]) {
      test(`${what}, ${withIndex ? 'the index still there' : 'no index'}`, async (t) => {
        const app = await killed(t);
        if (!app) return;
        writeFileSync(`${app.path}-wal`, damage(readFileSync(`${app.path}-wal`)));
        if (!withIndex) unlinkSync(`${app.path}-shm`);
        const copy = CapturedCopy.of(t, app.path, { fileEvents: false });
        const truth = await recovered(t, app.path);
        await copy.catchUp().catch((error) => {
          // With an index that names frames a damaged header is an error; whoever opens the database passes over both.
          assert.ok(withIndex && /header|magic|page size|zeroed/.test(what), error.message);
          assert.equal(error.code, 'FORMAT');
          assert.match(error.message, /app\.db: the WAL header: expected .*, found /);
        });
        if (copy.batches.length > 0) copy.assertIs(truth);
        const next = app.another(t);
        await next.open({ pragmas: PRAGMAS });
        await next.run("INSERT INTO t VALUES ('more')");
        await copy.catchUp();
        await copy.assertEquals(next);
      });
    }
  }

  test('of another version is refused by name, as SQLite refuses it', async (t) => {
    const app = await killed(t);
    if (!app) return;
    const wal = `${app.path}-wal`;
    writeFileSync(wal, craftWal({ ...parseWal(readFileSync(wal)), version: 3008000 }));
    unlinkSync(`${app.path}-shm`);
    const copy = CapturedCopy.of(t, app.path);
    const message = /app\.db: the WAL header: expected version 3007000, found 3008000/;
    await assert.rejects(copy.catchUp(), { code: 'FORMAT', message });
    await assert.rejects(recovered(t, app.path), /unable to open/);
  });

  test('of another page size than the database is refused by name', async (t) => {
    const app = await killed(t);
    if (!app) return;
    const page = Buffer.alloc(512, 1);
    const wal = craftWal({ pageSize: 512, salt1: 1, salt2: 2, frames: [{ pgno: 2, commit: 2, page }] });
    writeFileSync(`${app.path}-wal`, wal);
    unlinkSync(`${app.path}-shm`);
    const copy = CapturedCopy.of(t, app.path);
    const message = /app\.db: .* the WAL has pages of 512 bytes, the database had 1024/;
    await assert.rejects(copy.catchUp(), { code: 'CAPTURE', message });
  });

  test('in a frame that an application relies on is an error that names the frame, until it is checkpointed', async (t) => {
    const first = await killed(t);
    if (!first) return;
    const app = first.another(t);
    await app.open({ pragmas: PRAGMAS });
    await app.run('SELECT * FROM t');
    overwrite(`${app.path}-wal`, flip(inFrame(3, 900))(readFileSync(`${app.path}-wal`)));
    const copy = CapturedCopy.of(t, app.path);
    const message = /app\.db: .* checksums end behind frame 2, its index at frame 5/;
    await assert.rejects(copy.catchUp(), { code: 'CAPTURE', message });
    await app.run('PRAGMA wal_checkpoint(TRUNCATE)', "INSERT INTO t VALUES ('more')");
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  test('while it is followed ends in a gap, and what was handed on stays a state that was committed', async (t) => {
    const first = await killed(t);
    if (!first) return;
    const app = first.another(t);
    await app.open({ pragmas: PRAGMAS });
    await app.run('SELECT * FROM t');
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    const before = Buffer.from(copy.content);
    await app.run("INSERT INTO t VALUES ('six')", "INSERT INTO t VALUES ('seven')");
    overwrite(`${app.path}-wal`, flip(inFrame(7, 900))(readFileSync(`${app.path}-wal`)));
    await assert.rejects(copy.catchUp(), { code: 'CAPTURE' });
    assert.equal(copy.gaps.length, 1);
    copy.assertIs(before);
    await app.run('PRAGMA wal_checkpoint(TRUNCATE)', "INSERT INTO t VALUES ('eight')");
    await copy.catchUp();
    await copy.assertEquals(app);
  });
});

test('an index whose last frame does not end a commit is not followed into the middle of one', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: PRAGMAS });
  await app.run('CREATE TABLE t(x)', 'INSERT INTO t VALUES (randomblob(5000))');
  await app.kill();
  const [shm, wal] = [`${app.path}-shm`, readFileSync(`${app.path}-wal`)];
  const { frames } = parseWal(wal);
  const middle = frames.findLastIndex(({ commit }) => commit === 0) + 1;
  const at = 32 + (middle - 1) * FRAME_SIZE + 16;
  const checksum: [number, number] = [wal.readUInt32BE(at), wal.readUInt32BE(at + 4)];
  overwrite(shm, craftIndex({ ...readIndex(shm), maxFrame: middle, checksum }));
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  copy.assertIs(await recovered(t, app.path));
});

test('a WAL that is cut off between two looks is no end of its commits', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: PRAGMAS });
  await app.run('CREATE TABLE t(x)', 'INSERT INTO t VALUES (1)');
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  await app.run('INSERT INTO t VALUES (2)', 'INSERT INTO t VALUES (3)');
  await app.kill();
  truncateSync(`${app.path}-wal`, inFrame(readIndex(`${app.path}-shm`).maxFrame, 10));
  await copy.catchUp();
  copy.assertIs(await recovered(t, app.path));
});
