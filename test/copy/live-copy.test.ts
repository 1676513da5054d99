/** The rules of a live copy, one by one, against real readers in another process. */

import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { Guard } from '../../lib/copy/guard.js';
import type { LiveCopy } from '../../lib/copy/live-copy.js';
import { CopyReaders, CopyStage } from '../support/copy-stage.js';

async function copyWithReaders(t: TestContext, mode = 'wal', pageSize = 4096) {
  const stage = await CopyStage.open(t, mode, pageSize);
  if (stage === undefined) return undefined;
  const copy = await stage.restoreCopy();
  return { stage, copy, readers: new CopyReaders(t, stage.path) };
}

/** Both copies of the header of the index. */
function indexHeader(path: string): Buffer {
  return readFileSync(`${path}-shm`).subarray(0, 96);
}

/** As a reader would publish it that began to rebuild the index before the last batch came. */
function writeIndexHeader(path: string, header: Buffer): void {
  const shm = openSync(`${path}-shm`, 'r+');
  writeSync(shm, header, 0, header.length, 0);
  closeSync(shm);
}

/** One more row in source, replica and copy. */
async function grow(stage: CopyStage, copy: LiveCopy): Promise<void> {
  await stage.row();
  await stage.apply(copy);
}

for (const pageSize of [512, 65536]) {
  test(`readers of a copy with pages of ${pageSize} bytes see each batch, and one inside a transaction none`, async (t) => {
    const made = await copyWithReaders(t, 'wal', pageSize);
    if (!made) return;
    const { stage, copy, readers } = made;
    for (const name of ['steady', 'held']) await readers.open(name);
    assert.equal(await readers.count('steady'), 1);
    await grow(stage, copy);
    await readers.run('held', 'BEGIN');
    assert.equal(await readers.count('held'), 2);
    for (let rows = 3; rows < 12; rows++) {
      await grow(stage, copy);
      assert.equal(await readers.count('steady'), rows);
    }
    assert.equal(await readers.count('held'), 2);
    await readers.run('held', 'COMMIT');
    assert.equal(await readers.count('held'), 11);
  });
}

test('the copy of a database in rollback mode is in WAL mode, also after batches with its first page', async (t) => {
  const made = await copyWithReaders(t, 'delete');
  if (!made) return;
  const { stage, copy, readers } = made;
  await readers.open('steady');
  await readers.count('steady');
  for (let round = 0; round < 3; round++) {
    await stage.step(`CREATE TABLE more${round} (x)`, 'INSERT INTO t VALUES (NULL, NULL)');
    await stage.apply(copy);
    assert.equal(await readers.count('steady'), round + 2);
  }
  await readers.open('last', 'rw');
  assert.equal(await readers.count('last'), 4);
  for (const name of ['steady', 'last']) await readers.close(name);
  const [writeVersion, readVersion] = readFileSync(stage.path).subarray(18, 20);
  assert.deepEqual([writeVersion, readVersion], [2, 2]);
});

test('a database that VACUUM made smaller is smaller in the copy', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await readers.open('steady');
  await stage.row('zeroblob(300000)');
  await stage.apply(copy);
  assert.equal(await readers.count('steady'), 2);
  await stage.step('UPDATE t SET filler = NULL', 'VACUUM');
  await stage.apply(copy);
  assert.equal(await readers.count('steady'), 2);
  assert.ok(Number(((await readers.run('steady', 'PRAGMA page_count')) as number[][])[0][0]) < 10);
});

test('a connection that has seen an empty WAL does not take a later state for that one', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  for (const name of ['idle', 'other']) await readers.open(name, 'rw');
  assert.equal(await readers.count('idle'), 1);
  await grow(stage, copy);
  await readers.run('other', 'PRAGMA wal_checkpoint(TRUNCATE)');
  // The WAL was cut under the follower: were the index zeroed now, it would be rebuilt as the idle connection knows it.
  copy.check();
  assert.ok(copy.mustMend);
  assert.equal(await readers.count('other'), 2);
  assert.equal(await readers.count('idle'), 2);
  await grow(stage, copy);
  assert.ok(!copy.mustMend);
  assert.equal(await readers.count('idle'), 3);
});

test('what was in a WAL that the last reader removed goes in again, as one commit', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  for (let rows = 3; rows < 6; rows++) {
    await readers.open('last', 'rw');
    assert.equal(await readers.count('last'), rows - 1);
    await readers.close('last');
    assert.ok(!existsSync(`${stage.path}-wal`));
    await grow(stage, copy);
    await readers.open('next');
    assert.equal(await readers.count('next'), rows);
    await readers.close('next');
  }
  const wal = readFileSync(`${stage.path}-wal`);
  let commits = 0;
  for (let at = 32; at < wal.length; at += 24 + 4096) if (wal.readUInt32BE(at + 4) > 0) commits++;
  assert.equal(commits, 1);
});

test('a batch that was lost with a WAL removed by a reader who had not seen it goes in again', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  await readers.open('last', 'rw');
  assert.equal(await readers.count('last'), 2);
  const older = indexHeader(stage.path);
  // On pages that the next batch does not hold again.
  await stage.row('zeroblob(20000)');
  await stage.apply(copy);
  writeIndexHeader(stage.path, older);
  await readers.close('last');
  assert.ok(!existsSync(`${stage.path}-wal`));
  await grow(stage, copy);
  await readers.open('next');
  assert.equal(await readers.count('next'), 4);
});

test('a WAL removed while no follower ran is noticed when it starts', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  copy.close();
  await readers.open('last', 'rw');
  await readers.count('last');
  await readers.close('last');
  await stage.row();
  const again = stage.openCopy()!;
  assert.ok(again.mustMend);
  await stage.apply(again);
  await readers.open('next');
  assert.equal(await readers.count('next'), 3);
});

test('an end that a slow reader publishes late is not left standing', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await readers.open('steady');
  await grow(stage, copy);
  assert.equal(await readers.count('steady'), 2);
  copy.check();
  assert.ok(copy.isSettled);
  const older = indexHeader(stage.path);
  await grow(stage, copy);
  assert.ok(!copy.isSettled);
  writeIndexHeader(stage.path, older);
  assert.equal(await readers.count('steady'), 2, 'the reader believes the index');
  copy.check();
  assert.equal(await readers.count('steady'), 3);
  copy.check();
  assert.ok(copy.isSettled);
});

test('a checkpoint is asked for only when the index ends where the copy does', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await readers.open('steady');
  await grow(stage, copy);
  await readers.count('steady');
  const older = indexHeader(stage.path);
  await grow(stage, copy);
  let asked = 0;
  // A slow reader that publishes the older end each time, which no guard could be made to meet.
  const guard = (turn: () => unknown): Guard =>
    ({ turn: async () => void (await turn()), checkpoint: async () => ++asked === 0 }) as unknown as Guard;
  const slow = guard(() => writeIndexHeader(stage.path, older));
  assert.equal(await copy.checkpoint(slow, 0), false);
  assert.equal(asked, 0);
  await copy.checkpoint(
    guard(() => readers.count('steady')),
    0,
  );
  assert.equal(asked, 1);
});

for (const then of ['nothing more', 'a reader removes the WAL']) {
  test(`a follower killed in a checkpoint that empties the WAL, ${then}: what was in it goes in again only if it must`, async (t) => {
    const made = await copyWithReaders(t);
    if (!made) return;
    const { stage, copy, readers } = made;
    await grow(stage, copy);
    await readers.open('guard', 'rw');
    const killed = new Error('killed');
    const guard = {
      turn: () => readers.count('guard'),
      checkpoint: async () => {
        await readers.run('guard', 'PRAGMA wal_checkpoint(TRUNCATE)');
        throw killed;
      },
    } as unknown as Guard;
    await assert.rejects(copy.checkpoint(guard, 0), killed);
    copy.close();
    const isRemoved = then !== 'nothing more';
    if (isRemoved) await readers.close('guard');
    const again = stage.openCopy()!;
    assert.deepEqual([again.txid, again.mustMend], [2n, isRemoved]);
    await grow(stage, again);
    again.close();
    assert.deepEqual([stage.openCopy()?.txid, stage.openCopy()?.mustMend], [3n, false]);
    await readers.open('next');
    assert.equal(await readers.count('next'), 3);
  });
}

test('another writer of the copy is noticed, at work and after a restart', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  await readers.open('writer', 'rw');
  await readers.run('writer', 'INSERT INTO t VALUES (100, NULL)');
  const refused = { code: 'CONFLICT', message: /another program has written the live copy/ };
  assert.throws(() => copy.check(), refused);
  copy.close();
  assert.throws(() => stage.openCopy(), refused);
});

test('a database put in the place of the copy is left alone', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy } = made;
  copyFileSync(stage.path, `${stage.path}.new`);
  renameSync(`${stage.path}.new`, stage.path);
  assert.throws(() => copy.check(), { code: 'CONFLICT', message: /another file stands/ });
  copy.close();
  assert.equal(stage.openCopy(), undefined);
});

test('a batch that was cut off is overwritten, and nothing is cut off the WAL', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  await readers.open('held');
  await readers.run('held', 'BEGIN');
  assert.equal(await readers.count('held'), 2);
  const batch = copy.begin();
  for (let pgno = 3; pgno < 1000; pgno++) batch.add(pgno, new Uint8Array(4096).fill(7));
  copy.close();
  const { size } = statSync(`${stage.path}-wal`);
  assert.ok(size > 1_000_000);
  await stage.row();
  const again = stage.openCopy()!;
  assert.equal(again.mustMend, false);
  await stage.apply(again);
  assert.equal(statSync(`${stage.path}-wal`).size, size);
  assert.equal(await readers.count('held'), 2);
  await readers.run('held', 'COMMIT');
  assert.equal(await readers.count('held'), 3);
});

test('a follower killed before or after the end of a commit knows where its copy stands', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  const before = { wal: readFileSync(`${stage.path}-wal`), txid: copy.txid };
  await grow(stage, copy);
  const after = copy.txid;
  copy.close();
  const resumed = stage.openCopy()!;
  assert.deepEqual([resumed.txid, resumed.mustMend], [after, false]);
  resumed.close();
  // The commit frame had not been written yet: zeros stand there as in a file that was to grow.
  const wal = openSync(`${stage.path}-wal`, 'r+');
  const rest = statSync(`${stage.path}-wal`).size - before.wal.length;
  writeSync(wal, new Uint8Array(rest), 0, rest, before.wal.length);
  const cut = stage.openCopy()!;
  assert.deepEqual([cut.txid, cut.mustMend], [before.txid, false]);
  await stage.apply(cut);
  await readers.open('next');
  assert.equal(await readers.count('next'), 3);
});

test('after a power cut that took the end of the WAL the whole database goes in again', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy, readers } = made;
  await grow(stage, copy);
  const kept = statSync(`${stage.path}-wal`).size;
  for (let i = 0; i < 3; i++) await grow(stage, copy);
  copy.close();
  const wal = openSync(`${stage.path}-wal`, 'r+');
  const rest = statSync(`${stage.path}-wal`).size - kept;
  writeSync(wal, new Uint8Array(rest), 0, rest, kept);
  const again = stage.openCopy()!;
  assert.ok(again.mustMend);
  await stage.apply(again);
  await readers.open('next');
  assert.equal(await readers.count('next'), 5);
});

test('whoever may read the database may read the WAL and write the index, and nobody more', async (t) => {
  const made = await copyWithReaders(t);
  if (!made) return;
  const { stage, copy } = made;
  const modes = () => ['', '-wal', '-shm'].map((name) => statSync(stage.path + name).mode & 0o777);
  assert.deepEqual(modes(), [0o600, 0o600, 0o600]);
  chmodSync(stage.path, 0o644);
  copy.check();
  assert.deepEqual(modes(), [0o644, 0o644, 0o666]);
  chmodSync(stage.path, 0o640);
  copy.check();
  assert.deepEqual(modes(), [0o640, 0o640, 0o660]);
});
