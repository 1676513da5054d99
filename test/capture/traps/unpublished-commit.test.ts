/**
 * A writer writes its commit frame, syncs it, and only then publishes it in the index. If it dies in between, the frame
 * stands in the WAL with a right checksum and is a commit or not: as long as anyone else is connected it is none and
 * will be overwritten; if nobody is, the next to open the database recovers it. Whoever goes by the WAL's checksums
 * alone hands on a commit that nobody ever saw.
 */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { killedAtSync } from '../../support/hindered-writers.js';
import { parseWal, readIndex } from '../../support/wal-files.js';

/** Frame of the last commit by the WAL's own chain; every frame of these files is of one generation. */
function lastCommitFrame(path: string): number {
  return parseWal(readFileSync(`${path}-wal`)).frames.findLastIndex(({ commit }) => commit > 0) + 1;
}

async function makeDatabase(app: Application): Promise<void> {
  await app.open({ pragmas: ['synchronous=off', 'journal_mode=wal', 'wal_autocheckpoint=0'] });
  await app.run('CREATE TABLE t(x)', "INSERT INTO t VALUES ('before')");
}

async function join(writer: Application): Promise<void> {
  await writer.open({ pragmas: ['synchronous=off', 'wal_autocheckpoint=0'] });
  await writer.run('SELECT * FROM t');
}

async function dieInCommit(writer: Application): Promise<void> {
  await writer.run('PRAGMA synchronous=full');
  writer.send("INSERT INTO t VALUES ('dead')");
  await writer.ended;
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const when of ['while it is followed', 'before the first image'] as const) {
    test(`a commit whose writer died before publishing it is none while others are connected: ${when}, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await makeDatabase(app);
      const writer = killedAtSync(t, app.path);
      if (!writer) return;
      let copy = CapturedCopy.of(t, app.path, { fileEvents });
      if (when === 'while it is followed') await copy.catchUp();
      await join(writer);
      await dieInCommit(writer);
      assert.ok(lastCommitFrame(app.path) > readIndex(`${app.path}-shm`).maxFrame, 'the naive rule sees it');

      for (let look = 0; look < 4; look++) {
        await copy.catchUp();
        await copy.assertEquals(app);
        await sleep(200);
      }
      assert.deepEqual(await app.run('SELECT x FROM t'), [['before']]);
      await app.run("INSERT INTO t VALUES ('after')");
      await copy.catchUp();
      await copy.assertEquals(app);
      copy = copy.restarted(t);
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.deepEqual(copy.gaps, []);
    });
  }

  test(`a commit whose writer died before publishing it waits for whoever opens the database next, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await makeDatabase(app);
    const writer = killedAtSync(t, app.path);
    if (!writer) return;
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await join(writer);
    await dieInCommit(writer);
    const before = Buffer.from(copy.content);
    // Killed, so that it does not clean up: nobody is connected now.
    await app.kill();
    for (let look = 0; look < 4; look++) {
      await copy.catchUp();
      copy.assertIs(before);
      await sleep(200);
    }
    assert.equal(copy.capture.undecided, true);

    const next = app.another(t);
    await next.open();
    assert.deepEqual(await next.run('SELECT x FROM t'), [['before'], ['dead']]);
    await copy.catchUp();
    await copy.assertEquals(next);
    await next.run("INSERT INTO t VALUES ('after')");
    await sleep(600);
    await copy.catchUp();
    await copy.assertEquals(next);
    assert.equal(copy.capture.undecided, false);
  });
  for (const isLast of [false, true]) {
    const what = isLast ? 'but for a last one that was never published' : 'all of them';
    test(`commits left in a WAL that was begun anew are taken where no count is known, ${what}, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await makeDatabase(app);
      await app.run('CREATE TABLE u(n)', 'INSERT INTO u VALUES (50)');
      const writer = killedAtSync(t, app.path);
      if (!writer) return;
      await join(writer);
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(40);
      await copy.catchUp();
      await app.run('UPDATE u SET n = n + 1', 'INSERT INTO u VALUES (1)');
      if (isLast) await dieInCommit(writer);
      await app.run('PRAGMA wal_checkpoint(PASSIVE)', 'UPDATE u SET n = n + 1');
      // Moves its ctime: as if it had been begun anew.
      chmodSync(`${app.path}-shm`, 0o600);
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.gaps.length, isLast ? 1 : 0);
    });
  }

  test(`a commit whose writer died before publishing it is none right after one in exclusive locking mode, ${how}`, async (t) => {
    const first = await Application.inScratchFolder(t);
    if (!first) return;
    await makeDatabase(first);
    await first.kill();
    const [exclusive, app] = [first.another(t), first.another(t)];
    const writer = killedAtSync(t, app.path);
    if (!writer) return;
    await exclusive.open({ pragmas: ['locking_mode=exclusive', 'synchronous=off', 'wal_autocheckpoint=0'] });
    await exclusive.run("INSERT INTO t VALUES ('one')", "INSERT INTO t VALUES ('two')");
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await copy.assertEquals(exclusive);
    await exclusive.kill();
    await app.open();
    await app.run('SELECT * FROM t');
    await join(writer);
    await dieInCommit(writer);
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  for (const where of ['before it', 'in the new WAL', 'in a new WAL that has come up to it'] as const) {
    test(`a commit whose writer died before publishing it does not stand for one that changed nothing ${where}, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await makeDatabase(app);
      await app.run('CREATE TABLE u(id INTEGER PRIMARY KEY, n)', 'INSERT INTO u VALUES (1, 50)');
      const writer = killedAtSync(t, app.path);
      if (!writer) return;
      await join(writer);
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await sleep(40);
      await copy.catchUp();
      const { maxFrame } = readIndex(`${app.path}-shm`);
      const update = 'UPDATE u SET n = n + 1';
      // It is counted, and its frame is like the one before, bytes and all.
      const alike = ['BEGIN', update, 'UPDATE u SET n = n - 1', 'COMMIT'];
      if (where === 'before it') await app.run(update, ...alike);
      await dieInCommit(writer);
      await app.run('PRAGMA wal_checkpoint(PASSIVE)', update);
      if (where === 'in a new WAL that has come up to it') {
        while (readIndex(`${app.path}-shm`).maxFrame < maxFrame - 1) await app.run(update);
      }
      if (where !== 'before it') await app.run(...alike);
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.gaps.length, 1);
    });
  }
}
