import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { PageSums } from '../../lib/capture/page-sums.js';
import { scratchFolder } from '../support/scratch.js';

const PAGE_SIZE = 512;

function pageOf(pgno: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  new DataView(page.buffer).setUint32(8, pgno * 2654435761);
  return page;
}

test('sums tell a page that changed from one that did not, in memory and spilled to a file', async (t) => {
  const folder = await scratchFolder(t);
  const pages = 100_000;
  for (const memoryBytes of [0, 64 * 1024 * 1024]) {
    const sums = new PageSums({ memoryBytes, spillPath: path.join(folder, 'sums') });
    for (let pgno = 1; pgno <= pages; pgno++) sums.record(pgno, pageOf(pgno), 0, PAGE_SIZE);
    assert.equal(sums.pageCount, pages);
    const changed = pageOf(0);
    for (let pgno = 1; pgno <= pages; pgno += 997) {
      assert.ok(sums.matches(pgno, pageOf(pgno), 0, PAGE_SIZE));
      assert.ok(!sums.matches(pgno, changed, 0, PAGE_SIZE));
    }
    sums.close();
  }
});

test('sums above a shrunken database are forgotten, so that pages which come back are written again', async (t) => {
  const sums = new PageSums({ memoryBytes: 0, spillPath: path.join(await scratchFolder(t), 'sums') });
  for (let pgno = 1; pgno <= 30_000; pgno++) sums.record(pgno, pageOf(pgno), 0, PAGE_SIZE);
  sums.pageCount = 8200;
  sums.pageCount = 30_000;
  assert.ok(sums.matches(8200, pageOf(8200), 0, PAGE_SIZE));
  for (const pgno of [8201, 16_000, 20_000, 30_000]) {
    assert.ok(!sums.matches(pgno, pageOf(pgno), 0, PAGE_SIZE), `page ${pgno}`);
  }
  sums.close();
});

test('sums survive being serialised and loaded', async (t) => {
  const folder = await scratchFolder(t);
  const sums = new PageSums({ memoryBytes: 0, spillPath: path.join(folder, 'a') });
  for (let pgno = 1; pgno <= 20_001; pgno++) sums.record(pgno, pageOf(pgno), 0, PAGE_SIZE);
  const copy = new PageSums({ memoryBytes: 0, spillPath: path.join(folder, 'b') });
  let first = 1;
  for (const bytes of sums.serialise()) {
    copy.load(first, bytes);
    first += bytes.length / 8;
  }
  assert.equal(copy.pageCount, 20_001);
  for (const pgno of [1, 8192, 8193, 20_001]) assert.ok(copy.matches(pgno, pageOf(pgno), 0, PAGE_SIZE));
  assert.ok(!copy.matches(5, pageOf(6), 0, PAGE_SIZE));
  sums.close();
  copy.close();
});

test('frozen sums stay those of their moment while pages change, the database shrinks and grows again', async (t) => {
  const folder = await scratchFolder(t);
  const sums = new PageSums({ memoryBytes: 0, spillPath: path.join(folder, 'sums') });
  const pages = 40_000;
  for (let pgno = 1; pgno <= pages; pgno++) sums.record(pgno, pageOf(pgno), 0, PAGE_SIZE);
  const then = Buffer.concat([...sums.serialise()]);
  const frozen = sums.freeze({ memoryBytes: 0, spillPath: path.join(folder, 'frozen') });
  for (let pgno = 1; pgno <= pages; pgno += 7) sums.record(pgno, pageOf(0), 0, PAGE_SIZE);
  sums.pageCount = 8200;
  for (let pgno = 20_000; pgno <= pages + 9000; pgno += 3) sums.record(pgno, pageOf(1), 0, PAGE_SIZE);
  const now = Buffer.concat([...sums.serialise()]);

  assert.equal(frozen.pageCount, pages);
  assert.ok(then.equals(Buffer.concat([...frozen.serialise()])));
  for (const pgno of [1, 8, 8199, 8200, 8201, 20_000, pages]) {
    assert.ok(frozen.matches(pgno, pageOf(pgno), 0, PAGE_SIZE), `page ${pgno}`);
    assert.ok(!frozen.matches(pgno, pageOf(pgno + 1), 0, PAGE_SIZE));
  }
  frozen.close();
  assert.ok(now.equals(Buffer.concat([...sums.serialise()])));
  sums.close();
});
