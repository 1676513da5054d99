import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { Crc64 } from '../../lib/ltx/crc64.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { GatheredPages } from '../../lib/ltx/gathered-pages.js';
import type { LtxHeader } from '../../lib/ltx/header.js';
import { type LtxMergeInput, mergeLtx } from '../../lib/ltx/merge.js';
import { readPageIndex } from '../../lib/ltx/page-index.js';
import { lockPage } from '../../lib/sqlite/database.js';
import { type Random, randomSource } from '../support/random.js';
import { frameFile, lz4Frame } from './frames.js';
import {
  decodeFile,
  encodeFile,
  inPieces,
  makeHeader,
  makePage,
  type Pages,
  snapshotPages,
} from './pages.js';

interface Made {
  readonly header: LtxHeader;
  readonly pages: Pages;
  readonly file: Buffer;
}

/** Consecutive files of one database that grows and shrinks; each writes the pages that it grows by. */
function makeChain(random: Random, count: number, firstTxid: bigint, pageSize: number): Made[] {
  const chain: Made[] = [];
  let minTxid = firstTxid;
  let before = 1 + random.below(20);
  for (let i = 0; i < count; i++) {
    const maxTxid = minTxid + BigInt(random.below(3));
    const commit = random.oneIn(3) ? 1 + random.below(30) : before;
    const header = makeHeader({ pageSize, commit, minTxid, maxTxid, timestampMs: 1_700_000_000_000 + i });
    const pages: Pages = new Map();
    for (let pgno = 1; pgno <= commit; pgno++) {
      if (minTxid === 1n || pgno > before || random.oneIn(3)) pages.set(pgno, makePage(pageSize, random));
    }
    const file = random.oneIn(4)
      ? frameFile(header, pages, (page) => lz4Frame(page))
      : encodeFile(header, pages);
    chain.push({ header, pages, file });
    minTxid = maxTxid + 1n;
    before = commit;
  }
  return chain;
}

function inputsOf(files: readonly Uint8Array[], pieceSize: () => number): LtxMergeInput[] {
  return files.map((file, i) => ({ name: `input-${i}.ltx`, source: inPieces(file, pieceSize()) }));
}

async function merge(files: readonly Uint8Array[], pieceSize = () => 100_000): Promise<Buffer> {
  const blocks: Uint8Array[] = [];
  for await (const block of mergeLtx(inputsOf(files, pieceSize))) blocks.push(block);
  return Buffer.concat(blocks);
}

/** What laying the files over one another, in order, makes of a database; pages cut off are gone. */
function applyAll(chain: readonly Made[]): Pages {
  const database: Pages = new Map();
  for (const { header, pages } of chain) {
    for (const [pgno, page] of pages) database.set(pgno, page);
    for (const pgno of database.keys()) if (pgno > header.commit) database.delete(pgno);
  }
  return new Map([...database].sort(([a], [b]) => a - b));
}

test('merged files have the effect of all of them, one after the other', async (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 60; round++) {
    const pageSize = random.pick([512, 1024, 4096]);
    const chain = makeChain(random, 1 + random.below(6), random.oneIn(2) ? 1n : 7n, pageSize);
    const first = chain[0].header;
    const last = chain[chain.length - 1].header;
    const merged = await decodeFile(
      await merge(
        chain.map(({ file }) => file),
        () => 1 + random.below(3000),
      ),
    );
    assert.deepEqual(merged.pages, applyAll(chain));
    assert.deepEqual(
      merged.header,
      makeHeader({
        pageSize,
        commit: last.commit,
        minTxid: first.minTxid,
        maxTxid: last.maxTxid,
        timestampMs: last.timestampMs,
        walOffset: 0,
      }),
    );
  }
});

test('merging in steps, or all at once, gives the same file', async (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 15; round++) {
    const files = makeChain(random, 6, 1n, 1024).map(({ file }) => file);
    const atOnce = await merge(files);
    const [a, b] = [await merge(files.slice(0, 2)), await merge(files.slice(2, 5))];
    assert.deepEqual(await merge([a, b, files[5]]), atOnce);
  }
});

test('compressed pages are copied as they are, frames become blocks', async (t) => {
  const random = randomSource(t);
  const header = makeHeader({ commit: 6, walOffset: 0 });
  const pages = snapshotPages(header, random);
  const blocks = encodeFile(header, pages);
  assert.deepEqual(await merge([blocks]), blocks);
  assert.deepEqual(await merge([frameFile(header, pages, (page) => lz4Frame(page))]), blocks);

  // A block that this encoder would never write: the page as literals only.
  const page = new Uint8Array(1024).fill(7);
  const literals = Buffer.concat([Buffer.of(0xf0, 255, 255, 255, 244), page]);
  const remainder = new Crc64(0);
  remainder.update(page);
  const encoder = new LtxEncoder(makeHeader({ commit: 1, walOffset: 0 }));
  encoder.writeCompressedPage(1, remainder, literals, 0, literals.length);
  const odd = Buffer.from(encoder.finish());
  assert.deepEqual((await decodeFile(odd)).pages, new Map([[1, page]]));
  assert.deepEqual(await merge([odd]), odd);
});

test('a merged file can be read page by page', async (t) => {
  const random = randomSource(t);
  const chain = makeChain(random, 4, 1n, 512);
  const file = await merge(chain.map((made) => made.file));
  const readRange = async (offset: number, length: number) => file.subarray(offset, offset + length);
  const index = await readPageIndex(readRange, file.length, 'merged.ltx');
  assert.deepEqual([...index.pgnos], [...applyAll(chain).keys()]);
});

test('files with checksums of the database merge into one without', async () => {
  const page = new Uint8Array(512).fill(1);
  const plain = makeHeader({ pageSize: 512, commit: 1, minTxid: 2n, maxTxid: 2n });
  const checksummed = { ...plain, flags: 0, preApplyChecksum: (1n << 63n) | 9n };
  const file = frameFile(
    checksummed,
    new Map([[1, page]]),
    (content) => lz4Frame(content),
    (1n << 63n) | 11n,
  );
  const merged = await decodeFile(await merge([file]));
  assert.equal(merged.header.flags, 2);
  assert.equal(merged.header.preApplyChecksum, 0n);
  assert.deepEqual(merged.pages, new Map([[1, page]]));
});

test('a database above 1 GiB merges around its lock page', async (t) => {
  const random = randomSource(t);
  const lock = lockPage(65536);
  const around = (minTxid: bigint, pgnos: number[]) => {
    const header = makeHeader({ pageSize: 65536, commit: lock + 3, minTxid, maxTxid: minTxid });
    return encodeFile(header, new Map(pgnos.map((pgno) => [pgno, makePage(65536, random)])));
  };
  const merged = await merge([around(2n, [lock - 1, lock + 2]), around(3n, [1, lock - 1, lock + 1])]);
  assert.deepEqual([...(await decodeFile(merged)).pages.keys()], [1, lock - 1, lock + 1, lock + 2]);
});

test('files that do not follow one another are refused', async (t) => {
  const random = randomSource(t);
  const fileOf = (minTxid: bigint, maxTxid: bigint, pageSize = 512) =>
    encodeFile(
      makeHeader({ pageSize, commit: 3, minTxid, maxTxid }),
      new Map([[2, makePage(pageSize, random)]]),
    );
  const cases: [string, Buffer[], RegExp][] = [
    [
      'a hole',
      [fileOf(2n, 3n), fileOf(5n, 5n)],
      /input-1.ltx: expected a file from TXID 0000000000000004, found one from 0{15}5/,
    ],
    [
      'one inside the other',
      [fileOf(2n, 5n), fileOf(3n, 4n)],
      /from TXID 0{15}6, found one from 0{15}3 to 0{15}4/,
    ],
    ['the same twice', [fileOf(2n, 2n), fileOf(2n, 2n)], /from TXID 0000000000000003/],
    ['the wrong order', [fileOf(3n, 3n), fileOf(2n, 2n)], /from TXID 0000000000000004/],
    [
      'another page size',
      [fileOf(2n, 2n), fileOf(3n, 3n, 1024)],
      /input-1.ltx: expected pages of 512 bytes, found 1024/,
    ],
  ];
  for (const [what, files, reason] of cases) {
    const isRefusal = (error: unknown) => error instanceof FormatError && reason.test(error.message);
    await assert.rejects(merge(files), isRefusal, what);
  }
  await assert.rejects(merge([]), TypeError);
});

test('files that overlap merge, and a merged file can be told to begin later', async (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 20; round++) {
    const chain = makeChain(random, 5, 1n, 512);
    const files = chain.map(({ file }) => file);
    const [snapshot, middle] = [await merge(files.slice(0, 3)), await merge(files.slice(1, 5))];
    assert.deepEqual(await merge([snapshot, middle]), await merge(files));
    const minTxid = chain[2].header.minTxid;
    const blocks: Uint8Array[] = [];
    for await (const block of mergeLtx(
      inputsOf([snapshot, middle], () => 1000),
      { minTxid },
    )) {
      blocks.push(block);
    }
    const bridge = await decodeFile(Buffer.concat(blocks));
    assert.equal(bridge.header.minTxid, minTxid);
    assert.deepEqual(bridge.pages, applyAll(chain));
  }
});

test('what was gathered of files merges as the files do', async (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 30; round++) {
    const chain = makeChain(random, 6, random.oneIn(2) ? 1n : 7n, 512);
    const files = chain.map(({ file }) => file);
    const inputs: (LtxMergeInput | GatheredPages)[] = [];
    for (let i = 0; i < files.length; ) {
      const count = 1 + random.below(files.length - i);
      const run = inputsOf(files.slice(i, i + count), () => 1 + random.below(700));
      i += count;
      if (random.oneIn(3)) inputs.push(...run);
      else {
        const gathered = new GatheredPages();
        for (const input of run) await gathered.add(input);
        inputs.push(gathered);
      }
    }
    const blocks: Uint8Array[] = [];
    for await (const block of mergeLtx(inputs)) blocks.push(block);
    assert.deepEqual(Buffer.concat(blocks), await merge(files));
  }
  const gathered = new GatheredPages();
  const files = makeChain(random, 3, 1n, 512).map(({ file }) => file);
  await gathered.add(inputsOf([files[0]], () => 100)[0]);
  await assert.rejects(gathered.add(inputsOf([files[2]], () => 100)[0]), /expected a file from TXID/);
});

test('a file whose header has other TXIDs than its name is refused', async (t) => {
  const [{ file, header }] = makeChain(randomSource(t), 1, 4n, 512);
  const range = { minTxid: 4n, maxTxid: header.maxTxid + 1n };
  const input = { name: 'wrong.ltx', source: [file], range };
  const isRefusal = { code: 'FORMAT', message: /wrong\.ltx, header: expected TXIDs 0{15}4 to/ };
  await assert.rejects(async () => {
    for await (const _ of mergeLtx([input]));
  }, isRefusal);
  await assert.rejects(new GatheredPages().add(input), isRefusal);
});

test('a snapshot that cannot be made whole is refused', async (t) => {
  // The database grew to four pages, and nobody wrote the third.
  const page = makePage(512, randomSource(t));
  const snapshot = encodeFile(
    makeHeader({ pageSize: 512, commit: 2 }),
    new Map([1, 2].map((pgno) => [pgno, page])),
  );
  const grown = makeHeader({ pageSize: 512, commit: 4, minTxid: 2n, maxTxid: 2n });
  await assert.rejects(merge([snapshot, encodeFile(grown, new Map([[4, page]]))]), /page 4: expected page 3/);
});

test('a damaged input never lets a whole file out', async (t) => {
  const random = randomSource(t);
  let refused = 0;
  for (let round = 0; round < 150; round++) {
    const chain = makeChain(random, 2 + random.below(3), random.oneIn(2) ? 1n : 4n, 512);
    const files = chain.map(({ file }) => Buffer.from(file));
    const victim = random.below(files.length);
    if (random.oneIn(3)) files[victim] = files[victim].subarray(0, random.below(files[victim].length));
    else files[victim][random.below(files[victim].length)] ^= 1 << random.below(8);

    const blocks: Uint8Array[] = [];
    try {
      for await (const block of mergeLtx(inputsOf(files, () => 1 + random.below(2000)))) blocks.push(block);
      // Only damage that changes nothing, as in the hash of a frame's options, may pass.
      assert.deepEqual((await decodeFile(Buffer.concat(blocks))).pages, applyAll(chain));
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused++;
      await assert.rejects(decodeFile(Buffer.concat(blocks)), FormatError);
    }
  }
  assert.ok(refused > 100);
});

test('blocks are filled again only where the caller said that he keeps none', async (t) => {
  const random = randomSource(t);
  const pages = new Map(Array.from({ length: 400 }, (_, i) => [i + 1, random.bytes(4096)]));
  const file = encodeFile(makeHeader({ pageSize: 4096, commit: 400 }), pages);
  const input = () => [{ name: 'a.ltx', source: inPieces(file, 50_000) }];
  const kept: Uint8Array[] = [];
  for await (const block of mergeLtx(input())) kept.push(block);
  assert.ok(kept.length > 5);
  const copies: Uint8Array[] = [];
  const memory = new Set<ArrayBufferLike>();
  for await (const block of mergeLtx(input(), { reuseBlocks: true })) {
    copies.push(block.slice());
    memory.add(block.buffer);
  }
  assert.deepEqual(Buffer.concat(copies), Buffer.concat(kept));
  assert.deepEqual((await decodeFile(Buffer.concat(kept))).pages, pages);
  assert.ok(memory.size <= 3, `${memory.size} pieces of memory for ${copies.length} blocks`);
});

test('every source is closed, whether the merge ends, fails or is left', async (t) => {
  const random = randomSource(t);
  const files = makeChain(random, 4, 1n, 65536).map(({ file }) => file);
  const noisy = encodeFile(
    makeHeader({ pageSize: 65536, commit: 20 }),
    new Map(Array.from({ length: 20 }, (_, i) => [i + 1, random.bytes(65536)])),
  );
  let open = 0;
  async function* counted(file: Uint8Array) {
    open++;
    try {
      yield* inPieces(file, 10_000);
    } finally {
      open--;
    }
  }
  const inputs = (all: readonly Uint8Array[]) =>
    all.map((file, i) => ({ name: `${i}`, source: counted(file) }));
  for await (const _ of mergeLtx(inputs(files)));
  assert.equal(open, 0);
  await assert.rejects(async () => {
    for await (const _ of mergeLtx(inputs([files[0], files[2]])));
  }, FormatError);
  assert.equal(open, 0);
  for await (const block of mergeLtx(inputs([noisy]))) {
    assert.ok(block.length < noisy.length);
    break;
  }
  assert.equal(open, 0);
});
