/**
 * How large a database is: neither what its file's length says, nor, always, what its header says. A file may be longer
 * than its database, or lie about it.
 */
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { recovered } from '../../support/truth.js';
import { craftWal, parseWal } from '../../support/wal-files.js';

const PAGE_SIZE = 1024;
const PRAGMAS = [`page_size=${PAGE_SIZE}`, 'wal_autocheckpoint=0', 'synchronous=off'];

async function application(t: TestContext, mode: string): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas: [...PRAGMAS, `journal_mode=${mode}`] });
  await app.run('CREATE TABLE t(x)', 'INSERT INTO t VALUES (randomblob(3000))');
  if (mode === 'wal') await app.run('PRAGMA wal_checkpoint(TRUNCATE)');
  return app;
}

function writeHeader(path: string, offset: number, value: number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt32BE(value, offset);
  writeFileSync(path, bytes, { flag: 'r+' });
}

const SIZE = 28;
const VALID_FOR = 92;

/** Both kinds of image: compared with sums, and handed on as it is read. */
const IMAGES = { 'a compared image': false, 'a streamed image': true } as const;

async function take(copy: CapturedCopy, streamed: boolean): Promise<void> {
  if (streamed) await copy.stream();
  await copy.catchUp();
}

for (const [what, streamed] of Object.entries(IMAGES)) {
  for (const mode of ['delete', 'wal']) {
    test(`a file longer than its database (${mode} mode, ${what})`, async (t) => {
      const app = await application(t, mode);
      if (!app) return;
      // As SQLITE_FCNTL_CHUNK_SIZE makes it: whole chunks, zeros behind the last page.
      appendFileSync(app.path, Buffer.alloc(20 * PAGE_SIZE));
      await sleep(40);
      const copy = CapturedCopy.of(t, app.path);
      await take(copy, streamed);
      await copy.assertEquals(app);
      assert.ok(statSync(app.path).size > copy.content.length, 'the naive rule: the length of the file');
    });

    test(`a header that claims more pages than there are is refused (${mode} mode, ${what})`, async (t) => {
      const app = await application(t, mode);
      if (!app) return;
      await app.close();
      for (const claim of [statSync(app.path).size / PAGE_SIZE + 1, 0xfffffff0]) {
        writeHeader(app.path, SIZE, claim);
        await sleep(40);
        const copy = CapturedCopy.of(t, app.path);
        await assert.rejects(take(copy, streamed), {
          code: 'FORMAT',
          message: new RegExp(`app\\.db.*found ${claim}`),
        });
      }
      await assert.rejects(
        app.open().then(() => app.run('SELECT * FROM t')),
        /malformed/,
        'as SQLite does',
      );
    });

    test(`a header whose size is not valid leaves it to the file (${mode} mode, ${what})`, async (t) => {
      const app = await application(t, mode);
      if (!app) return;
      await app.close();
      writeHeader(app.path, VALID_FOR, 12345);
      writeHeader(app.path, SIZE, 1);
      await sleep(40);
      const copy = CapturedCopy.of(t, app.path);
      await take(copy, streamed);
      copy.assertIs(await recovered(t, app.path));
      assert.ok(copy.content.length > PAGE_SIZE);
    });
  }

  test(`a commit that claims more pages than there can be is refused (${what})`, async (t) => {
    const app = await application(t, 'wal');
    if (!app) return;
    await app.run('INSERT INTO t VALUES (1)');
    await app.kill();
    const wal = `${app.path}-wal`;
    const parsed = parseWal(readFileSync(wal));
    const frames = parsed.frames.map((frame) => ({ ...frame, commit: frame.commit && 0xfffffff0 }));
    writeFileSync(wal, craftWal({ ...parsed, frames }));
    truncateSync(`${app.path}-shm`, 0);
    const copy = CapturedCopy.of(t, app.path);
    await assert.rejects(take(copy, streamed), {
      code: 'CAPTURE',
      message: /app\.db.*frame 1 of the WAL says 4294967280 pages/,
    });
  });

  test(`a WAL beside an empty database file is none of its (${what})`, async (t) => {
    const app = await application(t, 'wal');
    if (!app) return;
    await app.run('INSERT INTO t VALUES (1)');
    await app.kill();
    truncateSync(app.path, 0);
    assert.equal((await recovered(t, app.path)).length, 0, 'SQLite takes the database for empty');
    truncateSync(app.path, 0);
    assert.throws(() => CapturedCopy.of(t, app.path), { code: 'NO_DATABASE' });
  });
}

test('a database that is cut to nothing while it is followed is no database of no pages', async (t) => {
  const app = await application(t, 'delete');
  if (!app) return;
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  const before = Buffer.from(copy.content);
  await app.close();
  truncateSync(app.path, 0);
  await sleep(40);
  await assert.rejects(copy.catchUp(), { code: 'NO_DATABASE' });
  copy.assertIs(before);
  await app.open({ pragmas: [...PRAGMAS] });
  await app.run('CREATE TABLE anew(x)');
  await copy.catchUp();
  await copy.assertEquals(app);
});

for (const mode of ['delete', 'wal']) {
  test(`a database that grows and shrinks by VACUUM, in ${mode} mode`, async (t) => {
    const app = await application(t, mode);
    if (!app) return;
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    for (let round = 0; round < 3; round++) {
      await app.run('INSERT INTO t VALUES (randomblob(40000))');
      if (round !== 1) await copy.catchUp();
      await app.run('DELETE FROM t WHERE length(x) > 5000', 'VACUUM');
      await copy.catchUp();
      await copy.assertEquals(app);
    }
  });
}

test('a transaction that spills pages beyond the end it leaves', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: [...PRAGMAS, 'auto_vacuum=1', 'journal_mode=wal', 'cache_size=5'] });
  await app.run('CREATE TABLE t(x)', 'INSERT INTO t VALUES (randomblob(9000))');
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  const pages = copy.content.length / PAGE_SIZE;
  await app.run(
    'BEGIN',
    'INSERT INTO t VALUES (randomblob(90000))',
    'DELETE FROM t WHERE length(x) > 9000',
    'COMMIT',
  );
  const frames = parseWal(readFileSync(`${app.path}-wal`)).frames;
  assert.ok(
    frames.some(({ pgno }) => pgno > pages),
    'the naive rule: every page of a frame is the database',
  );
  await copy.catchUp();
  await copy.assertEquals(app);
});

test('an image that is handed on while the database shrinks under it is the state it began at, or none', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  const settings = ['page_size=4096', 'auto_vacuum=2', 'secure_delete=on', 'cache_size=-8000'];
  await app.open({ pragmas: [...settings, 'journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'] });
  const rows = (n: number) =>
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${n}) SELECT randomblob(3900) AS x FROM n`;
  await app.run(
    `CREATE TABLE a AS ${rows(150)}`,
    `CREATE TABLE b AS ${rows(350)}`,
    'PRAGMA wal_checkpoint(TRUNCATE)',
  );
  // Every page that the shrinking writes is in the WAL already, so that no page of the file tells of it.
  await app.run('DELETE FROM a', `INSERT INTO b ${rows(2)}`);
  const copy = CapturedCopy.of(t, app.path);
  const truth = await recovered(t, app.path);
  const whole = await copy.stream(async (run) => {
    if (run.first > 1) return;
    await app.run('PRAGMA incremental_vacuum(100)', 'PRAGMA wal_checkpoint(PASSIVE)');
    assert.equal(statSync(app.path).size, truth.length - 100 * 4096);
  });
  if (whole) copy.assertIs(truth);
  await copy.catchUp();
  await copy.assertEquals(app);
});
