/**
 * A process in exclusive locking mode keeps its index in memory. A `-shm` that another process left behind stays
 * beside it, sound and silent: whoever believes it stops seeing commits.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { readIndex } from '../../support/wal-files.js';

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const EXCLUSIVE = ['locking_mode=exclusive', ...PRAGMAS];
const commit = (n: number) => `INSERT INTO t VALUES (${n})`;

/** What is left when an application with such a history was killed. */
const LEFT_BEHIND: Record<string, readonly string[]> = {
  'frames in the index': [commit(1), commit(2)],
  'an index of no frames, the WAL cut to nothing': [commit(1), 'PRAGMA wal_checkpoint(TRUNCATE)'],
};

async function leave(t: Parameters<typeof Application.inScratchFolder>[0], history: readonly string[]) {
  const first = await Application.inScratchFolder(t);
  if (!first) return undefined;
  await first.open({ pragmas: PRAGMAS });
  await first.run('CREATE TABLE t(x)', ...history);
  await first.kill();
  return first;
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const [what, history] of Object.entries(LEFT_BEHIND)) {
    test(`an exclusive writer beside ${what} is followed, ${how}`, async (t) => {
      const first = await leave(t, history);
      if (!first) return;
      const app = first.another(t);
      await app.open({ pragmas: EXCLUSIVE });
      const left = readIndex(`${app.path}-shm`);
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      for (let n = 10; n < 40; n += 3) {
        await app.run(commit(n), commit(n + 1), commit(n + 2));
        await copy.catchUp();
        await sleep(70);
      }
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.deepEqual(readIndex(`${app.path}-shm`), left, 'the naive rule: the index has not moved');
    });

    test(`an exclusive writer after ${what} that lost its name is followed, ${how}`, async (t) => {
      const first = await leave(t, history);
      if (!first) return;
      const copy = CapturedCopy.of(t, first.path, { fileEvents });
      await copy.catchUp();
      // As who closes last and is killed in the middle of that.
      rmSync(`${first.path}-shm`);
      const app = first.another(t);
      await app.open({ pragmas: EXCLUSIVE });
      await sleep(20);
      for (const n of [10, 11]) {
        await app.run(commit(n));
        await copy.catchUp();
        await sleep(520);
        await copy.catchUp();
        await copy.assertEquals(app);
        assert.equal(copy.capture.undecided, false);
      }
    });

    test(`a checkpoint of an exclusive writer beside ${what} is not overlooked, ${how}`, async (t) => {
      const first = await leave(t, history);
      if (!first) return;
      const app = first.another(t);
      await app.open({ pragmas: EXCLUSIVE });
      await app.run(commit(10), commit(11));
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      await sleep(600);
      await copy.catchUp();
      await copy.assertEquals(app);
      // All of it in the database, nothing in the WAL; then the same again without a look in between.
      for (let round = 0; round < 2; round++) {
        await app.run(commit(20), commit(21), 'PRAGMA wal_checkpoint(TRUNCATE)');
        if (round === 0) continue;
        await copy.catchUp();
        await copy.assertEquals(app);
        await app.run('CREATE TABLE more AS SELECT randomblob(30000)', 'PRAGMA wal_checkpoint(TRUNCATE)');
        await copy.catchUp();
        await copy.assertEquals(app);
      }
    });
  }

  for (const [what, history] of Object.entries(LEFT_BEHIND)) {
    for (const checkpoint of ['PASSIVE', 'TRUNCATE']) {
      const gone = `came, wrote and closed beside ${what}, after a ${checkpoint} checkpoint`;
      test(`an exclusive writer that ${gone}, is not overlooked, ${how}`, async (t) => {
        const first = await Application.inScratchFolder(t);
        if (!first) return;
        const app = first.another(t);
        await first.open({ pragmas: PRAGMAS });
        await first.run('CREATE TABLE t(x)', ...history);
        const copy = CapturedCopy.of(t, app.path, { fileEvents });
        await copy.catchUp();
        await first.kill();
        await app.open({ pragmas: EXCLUSIVE });
        await app.run(commit(10), `PRAGMA wal_checkpoint(${checkpoint})`);
        // So that the WAL visibly dies after the database was written last.
        await sleep(30);
        await app.close();
        await copy.catchUp();
        await app.open({ pragmas: PRAGMAS });
        await copy.catchUp();
        await copy.assertEquals(app);
      });
    }
  }

  test(`an exclusive writer without any -shm, checkpointed between two looks, ${how}`, async (t) => {
    const first = await leave(t, []);
    if (!first) return;
    rmSync(`${first.path}-shm`);
    const app = first.another(t);
    await app.open({ pragmas: EXCLUSIVE });
    await app.run('PRAGMA wal_checkpoint(TRUNCATE)');
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await copy.assertEquals(app);
    await app.run(commit(1), 'PRAGMA wal_checkpoint(TRUNCATE)');
    await copy.catchUp();
    await copy.assertEquals(app);
    await app.run('CREATE TABLE more AS SELECT randomblob(30000)', 'PRAGMA wal_checkpoint(TRUNCATE)');
    await copy.catchUp();
    await copy.assertEquals(app);
  });
}
