/**
 * Databases in rollback mode: pages of a transaction are in the file before it commits, and what tells that they do not
 * count yet is a journal, which may be left behind, overruled by another file, or held in memory only.
 */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { peer } from '../../support/peers.js';
import { recovered } from '../../support/truth.js';

const SETTINGS = ['page_size=1024', 'cache_size=5', 'synchronous=off'];
const ROWS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)';
const FILL = [
  'CREATE TABLE t(id INTEGER PRIMARY KEY, x)',
  `INSERT INTO t ${ROWS} SELECT i, randomblob(900) FROM n`,
];
const CHANGE = 'UPDATE t SET x = randomblob(900)';

/** Long enough for times to show any later change. */
const settle = () => sleep(50);

async function application(
  t: TestContext,
  mode: string,
  ...more: string[]
): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas: [...SETTINGS, ...more, `journal_mode=${mode}`] });
  await app.run(...FILL);
  await settle();
  return app;
}

const changeCounter = (path: string): number => readFileSync(path).readUInt32BE(24);

/** Killed at the first call of that kind. */
function mortal(t: TestContext, path: string, call: string): Application | undefined {
  const strace = peer(t, 'strace');
  if (strace === undefined) return undefined;
  return Application.start(t, path, [
    strace,
    '-f',
    '-qq',
    '-o',
    '/dev/null',
    '-e',
    `inject=${call}:signal=KILL:when=1`,
  ]);
}

/** Ends a journal with the name of a super-journal, as a transaction over several databases does. */
function nameSuperJournal(journal: string, superJournal: string, pageSize: number): void {
  const name = Buffer.from(superJournal);
  const tail = Buffer.alloc(4 + name.length + 16);
  tail.writeUInt32BE(0x40000000 / pageSize + 1, 0);
  name.copy(tail, 4);
  tail.writeUInt32BE(name.length, 4 + name.length);
  tail.writeUInt32BE(
    name.reduce((sum, byte) => sum + byte, 0),
    8 + name.length,
  );
  Buffer.from('d9d505f920a163d7', 'hex').copy(tail, 12 + name.length);
  appendFileSync(journal, tail);
}

// They wait for times to settle and for images that cannot be had: several at once.
describe('a database in rollback mode', { concurrency: 4 }, () => {
  for (const fileEvents of [true, false]) {
    const how = fileEvents ? 'with file events' : 'by the clock';

    test(`a change counter that stands still hides no commit, ${how}`, async (t) => {
      const app = await application(t, 'delete', 'locking_mode=exclusive');
      if (!app) return;
      await app.run(CHANGE);
      await settle();
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      const before = changeCounter(app.path);
      for (let round = 0; round < 2; round++) {
        await app.run('UPDATE t SET x = randomblob(900) WHERE id = 7');
        assert.equal(changeCounter(app.path), before, 'the naive rule: nothing has changed');
        await copy.catchUp();
        await copy.assertEquals(app);
      }
    });

    for (const mode of ['memory', 'off']) {
      for (const leftBehind of [false, true]) {
        const beside = leftBehind ? ', beside a journal that was left empty' : '';
        test(`pages that spilled without a journal are no commit: ${mode}${beside}, ${how}`, async (t) => {
          const app = await application(t, leftBehind ? 'persist' : mode);
          if (!app) return;
          if (leftBehind) {
            // Another connection keeps its journal; this one needs none.
            await app.open({
              on: 'other',
              pragmas: ['cache_size=5', 'synchronous=off', `journal_mode=${mode}`],
            });
            assert.ok(existsSync(`${app.path}-journal`));
          }
          const connection = leftBehind ? 'other' : 'main';
          const copy = CapturedCopy.of(t, app.path, { fileEvents });
          await copy.catchUp();
          const before = Buffer.from(copy.content);
          await app.on(connection, 'BEGIN', CHANGE);
          assert.notDeepEqual(
            readFileSync(app.path),
            before,
            'the naive rule: a file that is quiet is a commit',
          );
          await settle();
          await assert.rejects(copy.catchUp(), {
            code: 'CAPTURE',
            message: /a transaction without a journal/,
          });
          copy.assertIs(before);
          await app.on(connection, 'COMMIT');
          await copy.catchUp();
          await copy.assertEquals(app, connection);
        });
      }
    }

    for (const mode of ['delete', 'truncate', 'persist']) {
      test(`a transaction under way is left out by its journal, ${mode} mode, ${how}`, async (t) => {
        const app = await application(t, mode);
        if (!app) return;
        const copy = CapturedCopy.of(t, app.path, { fileEvents });
        await copy.catchUp();
        const before = Buffer.from(copy.content);
        await app.run('BEGIN', CHANGE, `INSERT INTO t ${ROWS} SELECT i + 1000, randomblob(900) FROM n`);
        assert.notDeepEqual(readFileSync(app.path).subarray(0, before.length), before);
        const late = CapturedCopy.of(t, app.path, { fileEvents });
        await late.catchUp();
        late.assertIs(before);
        await copy.catchUp();
        copy.assertIs(before);
        await app.run(CHANGE, 'COMMIT');
        for (const one of [copy, late]) {
          await one.catchUp();
          await one.assertEquals(app);
        }
        await app.run('BEGIN', CHANGE);
        await copy.catchUp();
        await app.run('ROLLBACK');
        await copy.catchUp();
        await copy.assertEquals(app);
      });

      test(`a transaction that was killed is undone by its journal, ${mode} mode, ${how}`, async (t) => {
        const app = await application(t, mode);
        if (!app) return;
        const copy = CapturedCopy.of(t, app.path, { fileEvents });
        await copy.catchUp();
        const before = Buffer.from(copy.content);
        await app.run('BEGIN', CHANGE, `INSERT INTO t ${ROWS} SELECT i + 1000, randomblob(900) FROM n`);
        await app.kill();
        const late = CapturedCopy.of(t, app.path, { fileEvents });
        for (const one of [copy, late]) {
          await one.catchUp();
          one.assertIs(before);
        }
        copy.assertIs(await recovered(t, app.path));
        const next = app.another(t);
        await next.open({ pragmas: [...SETTINGS, `journal_mode=${mode}`] });
        await next.run('SELECT * FROM t');
        for (const one of [copy, late]) {
          await one.catchUp();
          await one.assertEquals(next);
        }
        await next.run(CHANGE);
        await copy.catchUp();
        await copy.assertEquals(next);
      });
    }
  }

  for (const [what, change] of [
    ['shrunk', ['DELETE FROM t WHERE id > 5']],
    ['grown', [`INSERT INTO t ${ROWS} SELECT i + 1000, randomblob(900) FROM n`]],
    ['been rebuilt', ['VACUUM']],
  ] as const) {
    test(`a database that had ${what} when its writer was killed has the size it had before`, async (t) => {
      const app = await application(t, 'delete', 'auto_vacuum=1');
      if (!app) return;
      if (what === 'been rebuilt') await app.run('DELETE FROM t WHERE id % 2 = 0');
      await settle();
      const copy = CapturedCopy.of(t, app.path);
      await copy.catchUp();
      const before = Buffer.from(copy.content);
      await app.close();
      // Everything is written; all that was left to do was to remove the journal.
      const writer = mortal(t, app.path, 'unlink');
      if (!writer) return;
      await writer.open({ pragmas: ['synchronous=off', 'cache_size=5'] });
      writer.send(...change);
      await writer.ended;
      if (what === 'grown') assert.ok(statSync(app.path).size > before.length);
      const late = CapturedCopy.of(t, app.path);
      for (const one of [copy, late]) {
        await one.catchUp();
        one.assertIs(before);
      }
      copy.assertIs(await recovered(t, app.path));
    });
  }

  for (const there of [true, false]) {
    test(`a journal that names a super-journal which is ${there ? 'there undoes' : 'gone undoes nothing'}`, async (t) => {
      const app = await application(t, 'delete');
      if (!app) return;
      const before = readFileSync(app.path);
      await app.run('BEGIN', CHANGE);
      await app.kill();
      const superJournal = `${app.path}-mj123456789`;
      nameSuperJournal(`${app.path}-journal`, superJournal, 1024);
      if (there) writeFileSync(superJournal, `${app.path}-journal\0`);
      await settle();
      const copy = CapturedCopy.of(t, app.path);
      await copy.catchUp();
      assert.equal(copy.content.equals(before), there);
      copy.assertIs(await recovered(t, app.path));
    });
  }

  test('a super-journal that is removed makes the transaction a commit while it is followed', async (t) => {
    const app = await application(t, 'delete');
    if (!app) return;
    await app.run('BEGIN', CHANGE);
    await app.kill();
    const superJournal = `${app.path}-mj123456789`;
    nameSuperJournal(`${app.path}-journal`, superJournal, 1024);
    writeFileSync(superJournal, `${app.path}-journal\0`);
    await settle();
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    unlinkSync(superJournal);
    await copy.catchUp();
    copy.assertIs(readFileSync(app.path));
    copy.assertIs(await recovered(t, app.path));
  });

  for (const [what, damage] of [
    ['an impossible page size', (journal: Buffer) => journal.writeUInt32BE(1000, 24)],
    ['more pages before than can be', (journal: Buffer) => journal.writeUInt32BE(0xfffffff0, 16)],
    ['fewer records than it holds', (journal: Buffer) => journal.writeUInt32BE(1, 8)],
    ['more records than it holds', (journal: Buffer) => journal.writeUInt32BE(100_000, 8)],
    ['a record that is damaged', (journal: Buffer) => journal.writeUInt32BE(0, 512 + 4 + 1024 - 200)],
  ] as const) {
    test(`a journal with ${what} is read as SQLite reads it, or refused`, async (t) => {
      const app = await application(t, 'delete');
      if (!app) return;
      await app.run('BEGIN', CHANGE);
      await app.kill();
      const name = `${app.path}-journal`;
      const journal = readFileSync(name);
      damage(journal);
      writeFileSync(name, journal);
      await settle();
      const copy = CapturedCopy.of(t, app.path);
      if (what === 'more pages before than can be') {
        // SQLite would make the file that long.
        const message = /app\.db: its journal: expected .* pages at most.*, found 4294967280/;
        await assert.rejects(copy.catchUp(), { code: 'FORMAT', message });
        return;
      }
      await copy.catchUp();
      copy.assertIs(await recovered(t, app.path));
    });
  }

  for (const mode of ['delete', 'memory']) {
    test(`a database whose first transaction is under way holds nothing yet, ${mode} mode`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ pragmas: [...SETTINGS, `journal_mode=${mode}`] });
      await app.run('BEGIN', ...FILL);
      assert.ok(statSync(app.path).size > 0);
      await settle();
      assert.throws(() => CapturedCopy.of(t, app.path), { code: 'NO_DATABASE' });
      await app.run('COMMIT');
      const copy = CapturedCopy.of(t, app.path);
      await copy.catchUp();
      await copy.assertEquals(app);
    });
  }
});
