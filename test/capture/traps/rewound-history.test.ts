/**
 * Generations of a WAL are named by two random salts, yet the same salts can stand for another history: after a crash of
 * the machine the end of a WAL that was not synced is gone, and SQLite writes on from there; and a generation that was
 * given up can come back if the writer that began the next one died too early.
 */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { peer } from '../../support/peers.js';
import { overwrite, readIndex } from '../../support/wal-files.js';

const PRAGMAS = ['synchronous=off', 'journal_mode=wal', 'wal_autocheckpoint=0'];
const insert = (text: string) => `INSERT INTO t VALUES ('${text}')`;

/** Puts the files of a database back to what they were, on the same inodes. */
function remember(path: string): () => void {
  const files = ['', '-wal', '-shm'].map((suffix) => [path + suffix, readFileSync(path + suffix)] as const);
  return () => {
    for (const [name, bytes] of files) {
      truncateSync(name, bytes.length);
      overwrite(name, bytes);
    }
  };
}

/** An application with a few commits, which was then killed; how it was before its last commits can be had back. */
async function rewindable(t: TestContext, fileEvents: boolean) {
  const first = await Application.inScratchFolder(t);
  if (!first) return undefined;
  await first.open({ pragmas: PRAGMAS });
  await first.run('CREATE TABLE t(x)', insert('one'), insert('two'));
  const copy = CapturedCopy.of(t, first.path, { fileEvents });
  await copy.catchUp();
  await first.kill();
  const rewind = remember(first.path);
  const app = first.another(t);
  await app.open({ pragmas: PRAGMAS });
  await app.run(insert('lost'), insert('lost, too'), insert('and this'));
  await copy.catchUp();
  await copy.assertEquals(app);
  await app.kill();
  return { first, copy, rewind, position: readIndex(`${first.path}-shm`) };
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  test(`a WAL whose end was cut back under the same salts is a gap, ${how}`, async (t) => {
    const made = await rewindable(t, fileEvents);
    if (!made) return;
    const { first, copy, rewind } = made;
    rewind();
    const app = first.another(t);
    await app.open({ pragmas: PRAGMAS });
    await app.run('SELECT * FROM t');
    await copy.catchUp();
    await copy.assertEquals(app);
    assert.equal(copy.gaps.length, 1);
  });

  for (const commits of [3, 5]) {
    const where = commits === 3 ? 'to the same frame' : 'beyond it';
    test(`a WAL cut back and written on ${where} under the same salts is a gap, ${how}`, async (t) => {
      const made = await rewindable(t, fileEvents);
      if (!made) return;
      const { first, copy, rewind, position } = made;
      rewind();
      const app = first.another(t);
      await app.open({ pragmas: PRAGMAS });
      for (let n = 0; n < commits; n++) await app.run(insert(`another history ${n}`));
      const { salt1, salt2, maxFrame } = readIndex(`${first.path}-shm`);
      assert.deepEqual([salt1, salt2], [position.salt1, position.salt2], 'the naive rule: one generation');
      assert.ok(maxFrame >= position.maxFrame, 'the naive rule: nothing but what was added');
      await copy.catchUp();
      await copy.assertEquals(app);
      assert.equal(copy.gaps.length, 1);
    });
  }

  test(`a program that starts again over a WAL that was cut back finds a gap, ${how}`, async (t) => {
    const made = await rewindable(t, fileEvents);
    if (!made) return;
    const { first, copy, rewind } = made;
    const point = copy.capture.point();
    rewind();
    const app = first.another(t);
    await app.open({ pragmas: PRAGMAS });
    for (let n = 0; n < 6; n++) await app.run(insert(`another history ${n}`));
    const again = copy.restarted(t, point);
    await again.catchUp();
    await again.assertEquals(app);
    assert.equal(again.gaps.length, 1);
  });
}

/** Killed at its first write: it has published the restart of the WAL in the index, and not written it. */
async function dieAtRestart(t: TestContext, app: Application): Promise<boolean> {
  const strace = peer(t, 'strace');
  if (strace === undefined) return false;
  const kill = 'inject=pwrite64:signal=KILL:when=1';
  const writer = Application.start(t, app.path, [strace, '-f', '-qq', '-o', '/dev/null', '-e', kill])!;
  const before = readIndex(`${app.path}-shm`);
  await writer.open({ pragmas: ['synchronous=off', 'wal_autocheckpoint=0'] });
  writer.send(insert('dead'));
  await writer.ended;
  const after = readIndex(`${app.path}-shm`);
  assert.deepEqual([after.salt1, after.maxFrame], [(before.salt1 + 1) >>> 0, 0], 'a restart is published');
  return true;
}

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  for (const seen of [true, false]) {
    test(`a generation that was given up and comes back, the restart ${seen ? '' : 'not '}seen, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ pragmas: PRAGMAS });
      await app.run('CREATE TABLE t(x)', insert('one'), insert('two'));
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      const old = readIndex(`${app.path}-shm`);
      await app.run('PRAGMA wal_checkpoint(PASSIVE)');
      if (!(await dieAtRestart(t, app))) return;
      if (seen) await copy.catchUp();
      await copy.assertEquals(app);
      await app.kill();

      const next = app.another(t);
      await next.open({ pragmas: PRAGMAS });
      await next.run(insert('three'), insert('four'));
      const { salt1, salt2 } = readIndex(`${app.path}-shm`);
      assert.deepEqual([salt1, salt2], [old.salt1, old.salt2], 'the old generation goes on');
      await copy.catchUp();
      await copy.assertEquals(next);
      const late = CapturedCopy.of(t, app.path, { fileEvents });
      await late.catchUp();
      await late.assertEquals(next);
    });
  }

  test(`an image between the publication of a restart and its first write, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: PRAGMAS });
    await app.run('CREATE TABLE t(x)', insert('one'), insert('two'));
    // A commit frame of a writer that died, behind the last commit: the restart does not make it one.
    const strace = peer(t, 'strace');
    if (!strace) return;
    const kill = 'inject=fsync,fdatasync:signal=KILL:when=1';
    const dead = Application.start(t, app.path, [strace, '-f', '-qq', '-o', '/dev/null', '-e', kill])!;
    await dead.open({ pragmas: ['synchronous=full', 'wal_autocheckpoint=0'] });
    dead.send(insert('dead'));
    await dead.ended;
    await app.run('PRAGMA wal_checkpoint(PASSIVE)');
    if (!(await dieAtRestart(t, app))) return;

    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await copy.catchUp();
    await copy.assertEquals(app);
    await app.run(insert('three'));
    await copy.catchUp();
    await copy.assertEquals(app);
  });

  test(`both salts drawn anew with nothing missed and with something missed, ${how}`, async (t) => {
    const first = await Application.inScratchFolder(t);
    if (!first) return;
    await first.open({ pragmas: PRAGMAS });
    await first.run('CREATE TABLE t(x)', insert('one'), 'PRAGMA wal_checkpoint(TRUNCATE)');
    const copy = CapturedCopy.of(t, first.path, { fileEvents });
    await copy.catchUp();
    const old = readIndex(`${first.path}-shm`);
    // Recovery of an empty WAL draws both.
    await first.kill();
    for (const text of ['two', 'three']) {
      const app = first.another(t);
      await app.open({ pragmas: PRAGMAS });
      await app.run('SELECT * FROM t');
      const { salt1 } = readIndex(`${first.path}-shm`);
      assert.notEqual(salt1, (old.salt1 + 1) >>> 0);
      if (text === 'two') await copy.catchUp();
      await app.run(insert(text), 'PRAGMA wal_checkpoint(TRUNCATE)', insert('more'));
      await copy.catchUp();
      await copy.assertEquals(app);
      await app.run('PRAGMA wal_checkpoint(TRUNCATE)');
      await copy.catchUp();
      await copy.assertEquals(app);
      await app.kill();
      await sleep(fileEvents ? 0 : 40);
    }
  });
}

test('files put back by hand behind a stopped application are compared anew', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: PRAGMAS });
  await app.run('CREATE TABLE t(x)', insert('one'));
  const copy = CapturedCopy.of(t, app.path);
  await copy.catchUp();
  await app.close();
  const saved = `${app.path}.saved`;
  copyFileSync(app.path, saved);
  await app.open({ pragmas: PRAGMAS });
  await app.run(insert('two'));
  await copy.catchUp();
  await app.close();
  await copy.catchUp();
  writeFileSync(app.path, readFileSync(saved));
  await app.open();
  await copy.catchUp();
  await copy.assertEquals(app);
});
