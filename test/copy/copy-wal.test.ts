import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CopyWal } from '../../lib/copy/copy-wal.js';
import { scratchFolder } from '../support/scratch.js';

const PAGE_SIZE = 512;

test('the newest committed version of a page is found, of those that were cut off none', async (t) => {
  const path = join(await scratchFolder(t), 'copy.db-wal');
  const wal = new CopyWal(path, PAGE_SIZE, 0o600);
  const commit = (fills: Record<number, number>): void => {
    const batch = wal.begin();
    for (const [pgno, fill] of Object.entries(fills)) {
      batch.add(Number(pgno), new Uint8Array(PAGE_SIZE).fill(fill));
    }
    batch.finish(3, () => {});
  };
  const found = (in_: CopyWal): (number | undefined)[] => [1, 2, 3].map((pgno) => in_.page(pgno)?.[0]);
  assert.deepEqual(found(wal), [undefined, undefined, undefined]);
  commit({ 2: 20 });
  assert.deepEqual(found(wal), [undefined, 20, undefined]);
  commit({ 1: 11, 2: 21, 3: 31 });
  commit({ 3: 32 });
  const cutOff = wal.begin();
  cutOff.add(1, new Uint8Array(PAGE_SIZE).fill(99));
  for (let pgno = 2; pgno < 5000; pgno++) cutOff.add(pgno, new Uint8Array(PAGE_SIZE).fill(98));
  assert.deepEqual(found(wal), [11, 21, 32]);
  const again = new CopyWal(path, PAGE_SIZE, 0o600);
  again.scan();
  assert.deepEqual(found(again), [11, 21, 32]);
  const next = again.begin();
  next.add(1, new Uint8Array(PAGE_SIZE).fill(12));
  next.finish(3, () => {});
  assert.deepEqual(found(again), [12, 21, 32]);
  again.startOver();
  assert.deepEqual(found(again), [undefined, undefined, undefined]);
  wal.close();
  again.close();
});

test('a WAL gets its header together with its first commit', async (t) => {
  const path = join(await scratchFolder(t), 'copy.db-wal');
  const wal = new CopyWal(path, PAGE_SIZE, 0o600);
  const batch = wal.begin();
  batch.add(1, new Uint8Array(PAGE_SIZE));
  batch.finish(1, () => assert.equal(statSync(path).size, 0));
  assert.equal(statSync(path).size, wal.size);
  wal.close();
});
