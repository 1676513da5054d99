import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { decodePage } from '../../lib/ltx/page.js';
import { readPageIndex } from '../../lib/ltx/page-index.js';
import { randomSource } from '../support/random.js';
import { frameFile, lz4Frame } from './frames.js';
import { encodeFile, makeHeader, makePage, type Pages, snapshotPages } from './pages.js';

/** Reads the index of a file at hand; `asked` collects the ranges. */
function indexOf(file: Uint8Array, asked: [number, number][] = [], size = file.length) {
  const readRange = async (offset: number, length: number) => {
    asked.push([offset, length]);
    return file.subarray(offset, offset + length);
  };
  return readPageIndex(readRange, size, 'test.ltx');
}

async function assertRandomAccess(file: Uint8Array, pages: Pages, pageSize: number): Promise<void> {
  const index = await indexOf(file);
  assert.deepEqual([...index.pgnos], [...pages.keys()]);
  for (const [pgno, page] of pages) {
    const place = index.find(pgno);
    assert.ok(place !== undefined);
    const found = new Uint8Array(pageSize);
    decodePage(file.subarray(place.offset, place.offset + place.length), pgno, found, 'test.ltx');
    assert.deepEqual(found, page);
  }
}

test('each page is found by the index alone, as block or frame', async (t) => {
  const random = randomSource(t);
  const header = makeHeader({ commit: 40, minTxid: 3n, maxTxid: 4n });
  const pages: Pages = new Map();
  for (let pgno = 1 + random.below(3); pgno <= 40; pgno += 1 + random.below(4)) {
    pages.set(pgno, makePage(header.pageSize, random));
  }
  await assertRandomAccess(encodeFile(header, pages), pages, header.pageSize);
  await assertRandomAccess(
    frameFile(header, pages, (page) => lz4Frame(page)),
    pages,
    header.pageSize,
  );

  const index = await indexOf(encodeFile(header, pages));
  for (let pgno = 0; pgno <= 41; pgno++) assert.equal(index.find(pgno) !== undefined, pages.has(pgno));
  assert.deepEqual(index.header, header);
});

test('a small file takes one read, a large one reads its end and its header, an index beyond that a third', async (t) => {
  const random = randomSource(t);
  const small: [number, number][] = [];
  const header = makeHeader({ commit: 3 });
  await indexOf(encodeFile(header, snapshotPages(header, random)), small);
  assert.equal(small.length, 1);

  const noise = random.bytes(1024);
  for (const [commit, reads] of [
    [200, 2],
    [12_000, 3],
  ]) {
    const asked: [number, number][] = [];
    const large = makeHeader({ commit });
    const pages = new Map(Array.from({ length: commit }, (_, i) => [i + 1, noise]));
    const index = await indexOf(encodeFile(large, pages), asked);
    assert.equal(index.pgnos.length, commit);
    assert.equal(asked.length, reads);
    assert.ok(asked.reduce((sum, [, length]) => sum + length, 0) < 200_000);
  }
});

test('an index that lies is refused', async (t) => {
  const header = makeHeader({ commit: 5, minTxid: 2n, maxTxid: 2n });
  const pages = new Map([1, 2, 4].map((pgno) => [pgno, makePage(1024, randomSource(t), 'noise')]));
  const sound = encodeFile(header, pages);
  const lengthAt = sound.length - 24;
  const indexAt = lengthAt - Number(sound.readBigUInt64BE(lengthAt));
  const cases: [string, (file: Buffer) => void, RegExp][] = [
    ['length 0', (file) => file.writeBigUInt64BE(0n, lengthAt), /expected a length of 1 to/],
    [
      'length beyond the file',
      (file) => file.writeBigUInt64BE(1n << 60n, lengthAt),
      /expected a length of 1 to/,
    ],
    [
      'length of more pages than the database has',
      (file) => {
        file.writeUInt32BE(1, 12);
        file.writeBigUInt64BE(20n, lengthAt);
      },
      /expected a length of 1 to 19, found 20/,
    ],
    ['length one short', (file) => file.writeBigUInt64BE(BigInt(lengthAt - indexAt - 1), lengthAt), /index/],
    ['no end mark', (file) => file.fill(1, lengthAt - 1, lengthAt), /end mark/],
    ['a page that may not stand there', (file) => file.fill(3, indexAt, indexAt + 1), /page/],
    ['another offset', (file) => file.fill(file[indexAt + 1] + 1, indexAt + 1, indexAt + 2), /at byte/],
    ['a number without end', (file) => file.fill(0xff, indexAt, lengthAt - 1), /expected the pages to end/],
  ];
  for (const [what, damage, reason] of cases) {
    const file = Buffer.from(sound);
    damage(file);
    await assert.rejects(
      indexOf(file),
      (error) => error instanceof FormatError && reason.test(error.message),
      what,
    );
  }
  await assert.rejects(indexOf(sound.subarray(0, 100)), /expected a file of 131 bytes or more, found 100/);
  await assert.rejects(indexOf(sound.subarray(0, -9), [], sound.length), /expected \d+ bytes at byte 0/);
});

test('an index damaged anywhere is refused or says where the pages really are', async (t) => {
  const random = randomSource(t);
  const header = makeHeader({ commit: 30 });
  const pages = snapshotPages(header, random);
  const sound = encodeFile(header, pages);
  const lengthAt = sound.length - 24;
  const indexAt = lengthAt - Number(sound.readBigUInt64BE(lengthAt));
  let refused = 0;
  for (let round = 0; round < 1000; round++) {
    const file = Buffer.from(sound);
    file[indexAt + random.below(lengthAt + 8 - indexAt)] ^= 1 << random.below(8);
    try {
      await assertRandomAccess(file, pages, header.pageSize);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused++;
    }
  }
  assert.ok(refused > 0);
});

test('a page is refused where the index says another, and when its bytes are not whole', async (t) => {
  const header = makeHeader({ commit: 2 });
  const pages = snapshotPages(header, randomSource(t));
  const file = encodeFile(header, pages);
  const place = (await indexOf(file)).find(1)!;
  const bytes = file.subarray(place.offset, place.offset + place.length);
  const page = new Uint8Array(1024);
  assert.throws(() => decodePage(bytes, 2, page, 'test.ltx'), /test.ltx, page 2: .*found page 1/);
  assert.throws(() => decodePage(bytes.subarray(0, -1), 1, page, 'test.ltx'), /expected an LZ4 block of/);
  assert.throws(() => decodePage(bytes.subarray(0, 9), 1, page, 'test.ltx'), /found 9 bytes/);
  assert.throws(() => decodePage(bytes, 1, new Uint8Array(512), 'test.ltx'), FormatError);
  assert.throws(() => decodePage(bytes, 1, new Uint8Array(2048), 'test.ltx'), FormatError);
  const flagged = Buffer.from(bytes);
  flagged[5] = 2;
  assert.throws(() => decodePage(flagged, 1, page, 'test.ltx'), /page flags/);
});
