/**
 * The index header counts commits, but recovery begins the count anew, on the same inode. Whoever compares counts across
 * a recovery is told that nothing was missed.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { parseWal, readIndex } from '../../support/wal-files.js';

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const commit = (n: number) => `UPDATE t SET x = x || '${n}' WHERE id = ${1 + (n % 3)}`;

/** Commits that stand in the WAL, and the count that the index gives: all that the naive rule looks at. */
function counted(path: string): { inWal: number; count: number } {
  const { maxFrame, changeCount } = readIndex(`${path}-shm`);
  const wal = readFileSync(`${path}-wal`);
  const frames = wal.length === 0 ? [] : parseWal(wal).frames.slice(0, maxFrame);
  return { inWal: frames.filter((frame) => frame.commit !== 0).length, count: changeCount };
}

async function makeDatabase(app: Application): Promise<void> {
  await app.open({ pragmas: PRAGMAS });
  await app.run(
    'CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)',
    "INSERT INTO t VALUES (1,''),(2,''),(3,'')",
  );
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const recoveredBefore of [false, true]) {
    const whose = recoveredBefore ? 'a position taken after a recovery' : 'a position of the first life';
    test(`commits between a kill and a checkpoint are not taken for seen: ${whose}, ${how}`, async (t) => {
      const first = await Application.inScratchFolder(t);
      if (!first) return;
      await makeDatabase(first);
      let app = first;
      if (recoveredBefore) {
        await app.kill();
        app = first.another(t);
        await app.open({ pragmas: PRAGMAS });
        await app.run(commit(0));
      }
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      // By the clock a count is evidence only if the file's times were old when it was read.
      if (!fileEvents) await sleep(40);
      await copy.catchUp();
      const position = counted(app.path);
      await app.run(commit(1));
      await app.kill();

      app = first.another(t);
      await app.open({ pragmas: PRAGMAS });
      for (let n = 0; n < position.count; n++) await app.run(commit(n));
      await app.run('PRAGMA wal_checkpoint(TRUNCATE)', commit(4), commit(5));
      const now = counted(app.path);
      assert.equal(now.count - position.count, now.inWal, 'the naive rule: the counts agree');

      await copy.catchUp();
      await copy.assertEquals(app);
      assert.match(copy.gaps.join(), /index may have been rebuilt/);
    });
  }

  test(`an emptied WAL with an unmoved count proves nothing after a recovery, ${how}`, async (t) => {
    const first = await Application.inScratchFolder(t);
    if (!first) return;
    await makeDatabase(first);
    await first.kill();
    const second = first.another(t);
    await second.open({ pragmas: PRAGMAS });
    await second.run('SELECT * FROM t');
    const copy = CapturedCopy.of(t, first.path, { fileEvents });
    if (!fileEvents) await sleep(40);
    await copy.catchUp();
    const position = counted(first.path);
    assert.equal(position.count, 0);
    await second.run(commit(1), commit(2));
    await second.kill();

    // The first that whoever opens it next does is a checkpoint.
    const third = first.another(t);
    await third.open();
    await third.run('PRAGMA wal_checkpoint(TRUNCATE)');
    assert.deepEqual(counted(first.path), { inWal: 0, count: position.count }, 'the naive rule: no commit');

    await copy.catchUp();
    await copy.assertEquals(third);
  });

  test(`a TRUNCATE checkpoint by a second connection is crossed with proof, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await makeDatabase(app);
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    if (!fileEvents) await sleep(40);
    await copy.catchUp();
    await app.open({ on: 'other' });
    await app.on('other', 'PRAGMA wal_checkpoint(TRUNCATE)');
    if (!fileEvents) await sleep(40);
    await copy.catchUp();
    await app.run(commit(1), commit(2));
    await copy.catchUp();
    await copy.assertEquals(app);
    assert.deepEqual(copy.gaps, []);
    assert.equal(copy.capture.restarts, 1);
    // And one that nobody looked at in time.
    await app.run(commit(3));
    await app.on('other', 'PRAGMA wal_checkpoint(TRUNCATE)');
    await app.run(commit(4));
    await copy.catchUp();
    await copy.assertEquals(app);
    assert.equal(copy.gaps.length, 1);
  });
}
