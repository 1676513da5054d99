import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { PageOrder } from '../../lib/ltx/page-order.js';
import { lockPage } from '../../lib/sqlite/database.js';
import { randomSource } from '../support/random.js';
import {
  decodeFile,
  encodeFile,
  inPieces,
  makeHeader,
  makePage,
  PAGE_SIZES,
  type Pages,
  snapshotPages,
} from './pages.js';

test('what the encoder writes the decoder reads, at every page size, in pieces of any size', async (t) => {
  const random = randomSource(t);
  for (const pageSize of PAGE_SIZES) {
    const header = makeHeader({ pageSize, commit: 1 + random.below(12) });
    const pages = snapshotPages(header, random);
    const file = encodeFile(header, pages, 1 + random.below(5));
    for (const size of [1 + random.below(20), 1 + random.below(5000), file.length]) {
      const decoded = await decodeFile(file, size);
      assert.deepEqual(decoded.header, header);
      assert.deepEqual(decoded.pages, pages);
      assert.equal(decoded.pageCount, pages.size);
      assert.equal(decoded.bytes, file.length);
      assert.equal(decoded.fileChecksum, file.readBigUInt64BE(file.length - 8));
    }
  }
});

test('any ascending pages make an increment, also none', async (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 30; round++) {
    const commit = 1 + random.below(2 ** random.below(32));
    const header = makeHeader({ pageSize: 512, commit, minTxid: 2n, maxTxid: 5n });
    const pages: Pages = new Map();
    for (
      let pgno = 1 + random.below(commit);
      pgno <= commit && pages.size < 40;
      pgno += 1 + random.below(commit)
    ) {
      if (pgno !== lockPage(512)) pages.set(pgno, makePage(512, random));
    }
    assert.deepEqual((await decodeFile(encodeFile(header, pages), 1 + random.below(400))).pages, pages);
  }
});

test('files of many blocks come out block by block, whole and in order', async (t) => {
  const random = randomSource(t);
  const header = makeHeader({ pageSize: 65536, commit: 30 });
  const noise = makePage(65536, random, 'noise');
  const encoder = new LtxEncoder(header);
  const taken: Uint8Array[] = [];
  for (let pgno = 1; pgno <= 30; pgno++) {
    noise[0] = pgno;
    encoder.writePage(pgno, noise);
    if (pgno > 15) continue;
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) taken.push(block);
  }
  assert.ok(taken.length > 1);
  // A block is the caller's: what it does with one changes no other.
  const copies = taken.map((block) => block.slice());
  const rest = encoder.finish();
  assert.deepEqual(taken, copies);
  const file = Buffer.concat([...taken, rest]);
  assert.equal(encoder.bytesOut, file.length);
  assert.equal(encoder.pageCount, 30);
  const { pages } = await decodeFile(file, 100_000);
  assert.deepEqual(
    [...pages].map(([pgno, page]) => [pgno, page[0]]),
    Array.from({ length: 30 }, (_, i) => [i + 1, i + 1]),
  );
});

test('a snapshot above 1 GiB goes around the lock page', () => {
  for (const pageSize of [4096, 65536]) {
    const lock = lockPage(pageSize);
    const name = 'big.ltx';
    const upTo = (commit: number, last: number) => {
      const order = new PageOrder(makeHeader({ pageSize, commit }), name);
      for (let pgno = 1; pgno <= last; pgno++) if (pgno !== lock) order.take(pgno);
      return order;
    };
    upTo(lock + 1, lock + 1).finish();
    upTo(lock, lock - 1).finish();
    upTo(lock - 1, lock - 1).finish();
    assert.throws(() => upTo(lock + 1, lock - 1).finish(), new RegExp(`before page ${lock + 1}$`));
    assert.throws(
      () => upTo(lock + 1, lock - 1).take(lock),
      new RegExp(`page ${lock}: expected no lock page`),
    );
    assert.throws(() => upTo(lock + 2, lock - 1).take(lock + 2), new RegExp(`expected page ${lock + 1}`));
  }
});

test('an increment has pages on both sides of the lock page, never that page', async () => {
  const encoder = new LtxEncoder(makeHeader({ pageSize: 65536, commit: 16386, minTxid: 2n, maxTxid: 2n }));
  const page = new Uint8Array(65536);
  encoder.writePage(16384, page);
  assert.throws(() => encoder.writePage(16385, page), /page 16385: expected no lock page/);
  encoder.writePage(16386, page);
  assert.deepEqual([...(await decodeFile(encoder.finish())).pages.keys()], [16384, 16386]);
});

test('the encoder refuses pages that may not stand where they come, and goes on unharmed', async () => {
  const page = new Uint8Array(1024);
  const refuses = (encoder: LtxEncoder, pgno: number, reason: RegExp, bytes = page) => {
    const size = encoder.bytesOut;
    assert.throws(
      () => encoder.writePage(pgno, bytes),
      (error) =>
        error instanceof FormatError && reason.test(error.message) && error.message.includes(`page ${pgno}`),
    );
    assert.equal(encoder.bytesOut, size);
  };
  const increment = new LtxEncoder(makeHeader({ minTxid: 2n, maxTxid: 2n }));
  refuses(increment, 0, /page number from 1/);
  refuses(increment, 1.5, /page number from 1/);
  refuses(increment, 9, /pages up to 8/);
  refuses(increment, 3, /expected 1024 bytes, found 1023/, page.subarray(1));
  increment.writePage(3, page);
  refuses(increment, 3, /ascending/);
  refuses(increment, 2, /ascending page numbers, found it after page 3/);
  increment.writePage(8, page);
  assert.deepEqual([...(await decodeFile(Buffer.from(increment.finish()))).pages.keys()], [3, 8]);

  const snapshot = new LtxEncoder(makeHeader());
  refuses(snapshot, 2, /expected page 1: a snapshot has every page/);
  snapshot.writePage(1, page);
  refuses(snapshot, 3, /expected page 2/);
  assert.throws(() => snapshot.finish(), /every page up to 8 in a snapshot, found the end before page 2/);
});

test('only files without checksums of the database are written', () => {
  const header = makeHeader({ flags: 0, minTxid: 2n, maxTxid: 2n, preApplyChecksum: (1n << 63n) | 5n });
  assert.throws(() => new LtxEncoder(header), /expected flags 2/);
});

test('the visitor sees the header, waited for, before the first page', async (t) => {
  const seen: string[] = [];
  const header = makeHeader({ commit: 2 });
  const file = encodeFile(header, snapshotPages(header, randomSource(t)));
  await decodeLtx('a.ltx', inPieces(file, 50), {
    async header(header) {
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(`header ${header.commit}`);
    },
    page: (pgno) => seen.push(`page ${pgno}`),
  });
  assert.deepEqual(seen, ['header 2', 'page 1', 'page 2']);
});
