/**
 * Where capture runs in another PID namespace than the application, as containers do, it sees nobody's locks. What it
 * needs them for has to be found out otherwise, or left open, but never guessed.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { haltedAtWal, killedAtSync } from '../../support/hindered-writers.js';
import { runRandomHistory } from '../../support/random-history.js';
import { readIndex } from '../../support/wal-files.js';

// A namespace of one's own takes a superuser; what it comes to is this.
const read = fs.readFileSync;
mock.method(fs, 'readFileSync', (...args: Parameters<typeof fs.readFileSync>) =>
  args[0] === '/proc/locks' ? '' : read(...args),
);

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const EXCLUSIVE = ['locking_mode=exclusive', ...PRAGMAS];
const insert = (n: number) => `INSERT INTO t VALUES (${n})`;

/** Looks again and again, for as long as finding out may take. */
async function becomesEqual(copy: CapturedCopy, app: Application): Promise<void> {
  for (let look = 0; look < 6; look++) {
    await copy.catchUp();
    if (look === 5 || (await copy.equals(app))) break;
    await sleep(300);
  }
  await copy.assertEquals(app);
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const [what, history] of [
    ['with frames', [insert(1), insert(2)]],
    ['without frames', [insert(1), 'PRAGMA wal_checkpoint(TRUNCATE)']],
  ] as const) {
    test(`an index ${what} that was left behind is found out by two commits beside it, ${how}`, async (t) => {
      const first = await Application.inScratchFolder(t);
      if (!first) return;
      await first.open({ pragmas: PRAGMAS });
      await first.run('CREATE TABLE t(x)', ...history);
      await first.kill();
      const app = first.another(t);
      await app.open({ pragmas: EXCLUSIVE });
      const left = readIndex(`${app.path}-shm`);
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      await app.run(insert(3), insert(4));
      await becomesEqual(copy, app);
      // Once it is found out nothing waits for it any more.
      await app.run(insert(5));
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.deepEqual(readIndex(`${app.path}-shm`), left);
      // And a WAL that was emptied between two looks, nothing of it left to see.
      await app.run('PRAGMA wal_checkpoint(TRUNCATE)');
      await becomesEqual(copy, app);
      await sleep(600);
      await copy.catchUp();
      await app.run('CREATE TABLE more AS SELECT randomblob(30000)', 'PRAGMA wal_checkpoint(TRUNCATE)');
      await becomesEqual(copy, app);
    });
  }

  test(`an index that was left behind is found out by commits that moved no time and no size of the WAL, ${how}`, async (t) => {
    const first = await Application.inScratchFolder(t);
    if (!first) return;
    await first.open({ pragmas: PRAGMAS });
    await first.run('CREATE TABLE t(x)', insert(1));
    await first.kill();
    const app = first.another(t);
    await app.open({ pragmas: [...EXCLUSIVE, 'cache_size=1'] });
    const spill = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)';
    await app.run('BEGIN', `INSERT INTO t ${spill} SELECT randomblob(3000) FROM n`, 'ROLLBACK');
    // As a clock leaves them that has not ticked since.
    const times = [new Date(), new Date(Date.now() + 3_600_000)] as const;
    fs.utimesSync(`${app.path}-wal`, ...times);
    const { size } = fs.statSync(`${app.path}-wal`);
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await app.run(insert(3), insert(4));
    assert.equal(fs.statSync(`${app.path}-wal`).size, size);
    fs.utimesSync(`${app.path}-wal`, ...times);
    await becomesEqual(copy, app);
  });

  test(`an index that begins like the one before it is not taken for that one, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: PRAGMAS });
    await app.run('CREATE TABLE t(x)', insert(1));
    await app.close();
    const writer = killedAtSync(t, app.path, 3);
    if (!writer) return;
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    const lives: unknown[] = [];
    for (const isLast of [false, true]) {
      await app.open({ pragmas: PRAGMAS });
      assert.deepEqual(await app.run('SELECT x FROM t'), [[1]]);
      lives.push(readIndex(`${app.path}-shm`));
      await copy.catchUp();
      await sleep(520);
      await copy.catchUp();
      if (!isLast) await app.close();
    }
    assert.deepEqual(lives[1], lives[0]);
    await writer.open({ pragmas: ['synchronous=full', 'wal_autocheckpoint=0'] });
    writer.send(insert(2));
    await writer.ended;
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  test(`a commit that was never published is left alone and said to be undecided, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: PRAGMAS });
    await app.run('CREATE TABLE t(x)', insert(1));
    const writer = killedAtSync(t, app.path);
    if (!writer) return;
    await writer.open({ pragmas: ['synchronous=full', 'wal_autocheckpoint=0'] });
    writer.send(insert(2));
    await writer.ended;
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    for (let look = 0; look < 5; look++) {
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.capture.undecided, true);
      await sleep(150);
    }
    await app.run(insert(3));
    await sleep(520);
    await copy.catchUp();
    await copy.assertEquals(app);
    assert.equal(copy.capture.undecided, false);
    assert.deepEqual(copy.gaps, []);
  });

  test(`a commit that was never published is none in a WAL that is just being restarted, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: PRAGMAS });
    await app.run('CREATE TABLE t(x)', insert(1));
    const [dying, restarting] = [killedAtSync(t, app.path), haltedAtWal(t, app.path)];
    if (!dying || !restarting) return;
    await dying.open({ pragmas: ['synchronous=full', 'wal_autocheckpoint=0'] });
    dying.send(insert(2));
    await dying.ended;
    await app.run('PRAGMA wal_checkpoint(PASSIVE)');
    await restarting.open({ pragmas: ['synchronous=off'] });
    const written = restarting.run(insert(3));
    while (readIndex(`${app.path}-shm`).maxFrame > 0) await sleep(5);
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await copy.assertEquals(app);
    await written;
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  test(`random histories, ${how}`, (t) =>
    runRandomHistory(t, fileEvents, process.env.JETLITE_LONG === '1' ? 120 : 4));
}
