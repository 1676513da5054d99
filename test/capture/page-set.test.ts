import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { PageSet } from '../../lib/capture/page-set.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';

const PAGE_SIZE = 512;

function pageOf(pgno: number, version: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  new DataView(page.buffer).setUint32(0, pgno);
  new DataView(page.buffer).setUint32(PAGE_SIZE - 4, version);
  return page;
}

function contentOf(set: PageSet): Map<number, string> {
  const content = new Map<number, string>();
  let last = 0;
  for (const { pgno, page } of set.pages()) {
    assert.ok(pgno > last, `page ${pgno} after ${last}`);
    last = pgno;
    content.set(pgno, Buffer.from(page).toString('hex'));
  }
  return content;
}

test('a page set is a map of newest pages, whether they fit into memory or spill', async (t) => {
  const folder = await scratchFolder(t);
  const random = randomSource(t);
  for (const memoryBytes of [0, 700 * PAGE_SIZE, 100_000 * PAGE_SIZE]) {
    const set = new PageSet(PAGE_SIZE, { memoryBytes, spillPath: path.join(folder, 'new', 'spill') });
    const model = new Map<number, string>();
    for (let step = 0; step < 6000; step++) {
      const pgno = random.below(3000) + 1 + (random.below(20) === 0 ? 100_000 : 0);
      const draw = random.below(1000);
      if (draw < 900) {
        const page = pageOf(pgno, step);
        set.set(pgno, page, 0);
        model.set(pgno, Buffer.from(page).toString('hex'));
      } else if (draw < 998) {
        set.delete(pgno);
        model.delete(pgno);
      } else {
        set.truncate(pgno);
        for (const key of [...model.keys()]) if (key > pgno) model.delete(key);
      }
      assert.equal(set.has(pgno), model.has(pgno));
    }
    assert.equal(set.size, model.size);
    assert.deepEqual(contentOf(set), new Map([...model].sort(([a], [b]) => a - b)));
    set.clear();
    assert.equal(set.size, 0);
    set.set(7, pageOf(7, 1), 0);
    assert.deepEqual([...contentOf(set).keys()], [7]);
    set.close();
  }
});

test('a spill file has no name, so that a killed process leaves nothing behind', async (t) => {
  const folder = await scratchFolder(t);
  const set = new PageSet(PAGE_SIZE, { memoryBytes: 0, spillPath: path.join(folder, 'spill') });
  for (let pgno = 1; pgno <= 2000; pgno++) set.set(pgno, pageOf(pgno, pgno), 0);
  assert.equal(set.size, 2000);
  assert.deepEqual(fs.readdirSync(folder), []);
  set.close();
});
