/**
 * With a `journal_size_limit` the first commit after a restart of the WAL cuts the file to that size. Whoever finds that
 * the frame he stands behind was not overwritten, and that no commit stands behind it, may overlook one that was cut off.
 */
import assert from 'node:assert/strict';
import { chmodSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { readIndex } from '../../support/wal-files.js';

const PAGE_SIZE = 1024;

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const [counted, framesKept] of [
    [true, 0],
    [true, 2],
    [false, 0],
    [false, 2],
  ] as const) {
    const where = `cut off with ${framesKept} of its frames left`;
    const proof = counted ? 'made up for by padding to the sector' : 'while no count is known';
    test(`a commit ${where}, ${proof}, is found missing, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      const query = counted ? '?psow=0' : '';
      await app.open({
        query,
        pragmas: [`page_size=${PAGE_SIZE}`, 'journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=full'],
      });
      await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x)', 'CREATE TABLE lost(x)');
      await app.run('INSERT INTO t VALUES (1, 0)');
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(40);
      await copy.catchUp();
      const { maxFrame } = readIndex(`${app.path}-shm`);
      // Through the frame behind the position, or one further on.
      const limit = 32 + (maxFrame + framesKept) * (24 + PAGE_SIZE) + 100;
      await app.run(`PRAGMA journal_size_limit = ${limit}`);
      await app.run('INSERT INTO lost VALUES (zeroblob(100000))', 'PRAGMA wal_checkpoint(PASSIVE)');
      assert.ok(statSync(`${app.path}-wal`).size > limit);
      await app.run('UPDATE t SET x = 1');
      assert.ok(readIndex(`${app.path}-shm`).maxFrame < maxFrame, 'the frame is not overwritten');
      assert.equal(statSync(`${app.path}-wal`).size, limit);
      // Moves its ctime: as if it had been begun anew.
      if (!counted) chmodSync(`${app.path}-shm`, 0o600);
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.gaps.length, 1);
    });
  }
}
