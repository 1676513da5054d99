/**
 * On disks without power-safe overwrite SQLite fills the sector behind a synced commit with copies of its last frame,
 * bytes and all; the index counts them as nothing. A commit that changes no byte of the page that the last one wrote
 * looks the same, and is counted. Whoever counts padding as commits does not notice when as many are lost; whoever
 * compares page numbers only takes every one-row update for padding and reads the whole database at each restart.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { type CraftedFrame, parseWal, readIndex } from '../../support/wal-files.js';

function frames(path: string): readonly CraftedFrame[] {
  const wal = readFileSync(`${path}-wal`);
  return wal.length === 0 ? [] : parseWal(wal).frames.slice(0, readIndex(`${path}-shm`).maxFrame);
}

/** The naive rule: a commit is a frame that ends one. */
const commitFrames = (path: string): number => frames(path).filter(({ commit }) => commit > 0).length;

/** The other naive rule: same page and same size as the frame before is padding. */
const likePadding = (path: string): number =>
  frames(path).filter(
    ({ pgno, commit }, i, all) => commit > 0 && pgno === all[i - 1]?.pgno && all[i - 1]?.commit === commit,
  ).length;

const PADDED = '?psow=0';
/** One commit that writes a page as it was. */
const UNCHANGED = [
  'BEGIN',
  'UPDATE t SET x = x + 1 WHERE id = 1',
  'UPDATE t SET x = x - 1 WHERE id = 1',
  'COMMIT',
];

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const pageSize of [512, 4096]) {
    const pragmas = [`page_size=${pageSize}`, 'journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=full'];

    test(`padding to the sector hides no commit, pages of ${pageSize} bytes, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ query: PADDED, pragmas });
      await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'INSERT INTO t VALUES (1, 0), (2, 0)');
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(fileEvents ? 0 : 40);
      await copy.catchUp();
      const before = readIndex(`${app.path}-shm`).changeCount;
      // As many commits are lost as the padding of those seen can make up for.
      await app.run('CREATE TABLE lost(x)', 'PRAGMA wal_checkpoint(TRUNCATE)');
      for (let n = 0; n < 4; n++) {
        await app.run(`UPDATE t SET x = ${n} WHERE id = 1`);
        const made = readIndex(`${app.path}-shm`).changeCount - before;
        if (commitFrames(app.path) >= made) break;
      }
      assert.ok(
        commitFrames(app.path) >= readIndex(`${app.path}-shm`).changeCount - before,
        'the naive count',
      );
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.gaps.length, 1);
    });

    test(`padded commits do not resync at restarts, pages of ${pageSize} bytes, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ query: PADDED, pragmas });
      await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'INSERT INTO t VALUES (1, 0), (2, 0)');
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(fileEvents ? 0 : 40);
      await copy.catchUp();
      for (let round = 0; round < 4; round++) {
        await app.run(`UPDATE t SET x = x + 1 WHERE id = 1`, `UPDATE t SET x = x + 1 WHERE id = 2`);
        if (round % 2 === 0) await copy.catchUp();
        await app.run('PRAGMA wal_checkpoint(PASSIVE)', 'UPDATE t SET x = x + 1', 'UPDATE t SET x = x + 1');
        assert.ok(likePadding(app.path) > 0);
        await copy.catchUp();
        await copy.assertEquals(app);
      }
      assert.deepEqual(copy.gaps, []);
      assert.ok(copy.capture.restarts >= 4);
    });
  }

  for (const [what, change] of [
    ['one-row updates of one page', ['UPDATE t SET x = x + 1 WHERE id = 1']],
    ['commits that change nothing', UNCHANGED],
  ] as const) {
    test(`${what} do not resync at restarts, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ pragmas: ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'] });
      await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'INSERT INTO t VALUES (1, 0), (2, 0)');
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(fileEvents ? 0 : 40);
      await copy.catchUp();
      for (let round = 0; round < 4; round++) {
        for (let n = 0; n < 6; n++) await app.run(...change);
        if (round % 2 === 0) await copy.catchUp();
        await app.run('PRAGMA wal_checkpoint(PASSIVE)', ...change, ...change, ...change);
        assert.ok(likePadding(app.path) >= 2, 'the naive rule: padding');
        await copy.catchUp();
        await copy.assertEquals(app);
      }
      assert.deepEqual(copy.gaps, []);
      assert.ok(copy.capture.restarts >= 4);
    });
  }

  test(`padding that follows updates without any hides no commit, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'] });
    await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'INSERT INTO t VALUES (1, 0), (2, 0)');
    await app.open({ on: 'padding', query: PADDED, pragmas: ['wal_autocheckpoint=0', 'synchronous=full'] });
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await sleep(fileEvents ? 0 : 40);
    await copy.catchUp();
    await app.run(...UNCHANGED, ...UNCHANGED, ...UNCHANGED, 'PRAGMA wal_checkpoint(PASSIVE)', ...UNCHANGED);
    await copy.catchUp();
    await app.run(...UNCHANGED, ...UNCHANGED);
    await copy.catchUp();
    const before = readIndex(`${app.path}-shm`);
    // One is lost; its place is overwritten by what follows.
    await app.run('UPDATE t SET x = 7 WHERE id = 2', 'PRAGMA wal_checkpoint(PASSIVE)');
    let made = 0;
    do {
      await app.on('padding', `UPDATE t SET x = x + 1 WHERE id = 1`);
      made = readIndex(`${app.path}-shm`).changeCount - before.changeCount;
    } while (readIndex(`${app.path}-shm`).maxFrame < before.maxFrame + 2);
    t.diagnostic(`${made} commits, ${commitFrames(app.path)} commit frames`);
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  test(`a batch that ends between a commit and its padding, taken up by another process, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    const pragmas = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=full'];
    await app.open({ query: PADDED, pragmas });
    await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'INSERT INTO t VALUES (1, 0), (2, 0)');
    // Full after each commit, so that it stops before the padding.
    const copy = CapturedCopy.of(t, app.path, { fileEvents, batchBytes: 1 });
    await sleep(40);
    await copy.catchUp();
    await app.run('UPDATE t SET x = 1 WHERE id = 1');
    assert.equal(await copy.capture.poll(), 'more');
    copy.take();
    const point = copy.capture.point();
    assert.ok((point.wal?.position.frame ?? 0) < readIndex(`${app.path}-shm`).maxFrame);
    // One commit behind the padding in the old generation, one in the new.
    await app.run(
      'UPDATE t SET x = 2 WHERE id = 2',
      'PRAGMA wal_checkpoint(PASSIVE)',
      'UPDATE t SET x = 3 WHERE id = 1',
    );
    const again = copy.restarted(t, point);
    await again.catchUp();
    await again.assertEquals(app);
  });
}
