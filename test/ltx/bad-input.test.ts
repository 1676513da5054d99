import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { Crc64 } from '../../lib/ltx/crc64.js';
import { decodeLtx, LtxDecoder } from '../../lib/ltx/decoder.js';
import { LTX_CHECKSUM_FLAG, type LtxHeader } from '../../lib/ltx/header.js';
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

/** An increment of three pages and where its parts begin. */
function sampleFile(over: Partial<LtxHeader> = {}) {
  const header = makeHeader({ commit: 9, minTxid: 2n, maxTxid: 2n, ...over });
  const pages: Pages = new Map();
  for (const pgno of [2, 5, 9]) {
    const page = new Uint8Array(header.pageSize);
    page.fill(pgno);
    pages.set(pgno, page);
  }
  const file = encodeFile(header, pages);
  const lengthAt = file.length - 24;
  const indexAt = lengthAt - Number(file.readBigUInt64BE(lengthAt));
  const page2At = 100 + 10 + file.readUInt32BE(106);
  return { header, pages, file, page2At, endOfPagesAt: indexAt - 6, indexAt, lengthAt };
}

function rejectsWith(reason: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof FormatError, `${error}`);
    assert.match(error.message, /^test\.ltx[,:]/);
    assert.match(error.message, reason);
    assert.ok(!error.message.includes('\n'));
    return true;
  };
}

/**
 * Gives a changed file the checksum it would have if a program had written it so. Pages must not have changed.
 */
function sign(file: Buffer, pages: Pages): Buffer {
  const checksum = new Crc64();
  checksum.update(file, 0, 100);
  let at = 100;
  for (const page of pages.values()) {
    checksum.update(file, at, 10);
    checksum.update(page);
    at += 10 + file.readUInt32BE(at + 6);
  }
  checksum.update(file, at, file.length - 8 - at);
  file.writeBigUInt64BE(checksum.value() | LTX_CHECKSUM_FLAG, file.length - 8);
  return file;
}

test('each thing that can be wrong is named, with the page where it is', async () => {
  const { file, pages, page2At, endOfPagesAt, indexAt, lengthAt } = sampleFile();
  const cases: [string, (file: Buffer) => void, RegExp][] = [
    ['magic', (f) => f.write('LTX2'), /header: expected the magic number/],
    ['flags', (f) => f.writeUInt32BE(4, 4), /header: expected flags 0 or 2, found 0x4/],
    ['page size', (f) => f.writeUInt32BE(1000, 8), /header: expected a page size/],
    ['TXIDs', (f) => f.writeBigUInt64BE(9n, 16), /header: expected a max TXID of at least 0000000000000009/],
    ['a page above the commit', (f) => f.writeUInt32BE(10, page2At), /page 10: expected pages up to 9/],
    [
      'a page twice',
      (f) => f.writeUInt32BE(2, page2At),
      /page 2: expected ascending page numbers, found it after page 2/,
    ],
    ['pages out of order', (f) => f.writeUInt32BE(1, page2At), /page 1: expected ascending/],
    ['a page number 0', (f) => f.writeUInt32BE(0, page2At), /page 0: expected a page number from 1/],
    [
      'page flags',
      (f) => f.writeUInt16BE(3, page2At + 4),
      /page 5 \(byte \d+\): expected page flags 0 or 1, found 3/,
    ],
    [
      'an empty page',
      (f) => f.writeUInt32BE(0, page2At + 6),
      /page 5 .*expected an LZ4 block of 1 to 1044 bytes, found 0/,
    ],
    [
      'a huge page',
      (f) => f.writeUInt32BE(0xffffffff, page2At + 6),
      /page 5 .*1 to 1044 bytes, found 4294967295/,
    ],
    ['LZ4 that is none', (f) => f.fill(0xff, page2At + 10, page2At + 20), /page 5 .*malformed/],
    [
      'no frame where one should be',
      (f) => f.writeUInt16BE(0, page2At + 4),
      /page 5 .*expected an LZ4 frame/,
    ],
    ['the index: page', (f) => f.writeUInt8(3, indexAt), /page index: expected page 2 /],
    [
      'the index: offset',
      (f) => f.writeUInt8(f[indexAt + 1] ^ 1, indexAt + 1),
      /page index: expected page 2 /,
    ],
    [
      'the index: size',
      (f) => f.writeUInt8(f[lengthAt - 2] ^ 1, lengthAt - 2),
      /page index: expected page 9 /,
    ],
    ['the index: end', (f) => f.writeUInt8(1, lengthAt - 1), /page index: expected its end mark/],
    [
      'the index: length',
      (f) => f.writeBigUInt64BE(1n << 40n, lengthAt),
      /page index: expected its end mark and its length/,
    ],
    [
      'post-apply checksum',
      (f) => f.writeUInt8(0x80, f.length - 16),
      /trailer: expected no post-apply checksum/,
    ],
    [
      'file checksum',
      (f) => f.writeUInt8(f[f.length - 1] ^ 1, f.length - 1),
      /trailer: expected contents with checksum/,
    ],
    [
      'a byte in a page',
      (f) => f.writeUInt8(f[page2At + 11] ^ 1, page2At + 11),
      /trailer: expected contents with checksum/,
    ],
    ['a reserved byte', (f) => f.writeUInt8(1, 99), /trailer: expected contents with checksum/],
  ];
  assert.deepEqual((await decodeFile(sign(Buffer.from(file), pages))).pages, pages);
  for (const [what, damage, reason] of cases) {
    const damaged = Buffer.from(file);
    damage(damaged);
    for (const size of [1, 33, file.length]) {
      await assert.rejects(decodeFile(damaged, size), rejectsWith(reason), what);
    }
  }
  const early = Buffer.concat([file.subarray(0, page2At), file.subarray(endOfPagesAt)]);
  await assert.rejects(decodeFile(early), rejectsWith(/page index/), 'a page that only the index knows');
});

test('an index that lies is refused though the checksum says that it was written so', async () => {
  const { file, pages, indexAt } = sampleFile();
  const lying = Buffer.from(file);
  lying[indexAt + 1] ^= 1;
  await assert.rejects(decodeFile(sign(lying, pages)), rejectsWith(/page index: expected page 2 /));
});

test('a snapshot with a hole is refused where the hole is', async (t) => {
  const header = makeHeader({ commit: 4, minTxid: 2n, maxTxid: 2n });
  const page = makePage(1024, randomSource(t));
  const asSnapshot = (pgnos: number[]) => {
    const file = encodeFile(header, new Map(pgnos.map((pgno) => [pgno, page])));
    file.writeBigUInt64BE(1n, 16);
    return file;
  };
  await assert.rejects(decodeFile(asSnapshot([2, 3, 4])), rejectsWith(/page 2: expected page 1/));
  await assert.rejects(decodeFile(asSnapshot([1, 2, 4])), rejectsWith(/page 4: expected page 3/));
  await assert.rejects(decodeFile(asSnapshot([1, 2, 3])), rejectsWith(/every page up to 4 .*before page 4/));
  await assert.rejects(decodeFile(asSnapshot([])), rejectsWith(/every page up to 4 .*before page 1/));
});

test('the lock page is refused', async () => {
  const header = makeHeader({ pageSize: 65536, commit: 20_000, minTxid: 2n, maxTxid: 2n });
  const file = encodeFile(header, new Map([[16_386, new Uint8Array(65536)]]));
  file.writeUInt32BE(16_385, 100);
  await assert.rejects(decodeFile(file), rejectsWith(/page 16385: expected no lock page/));
});

test('a file with checksums of the database must have one after its last transaction', async () => {
  const { file, pages } = sampleFile();
  file.writeUInt32BE(0, 4);
  file.writeBigUInt64BE(1n << 63n, 40);
  await assert.rejects(decodeFile(sign(file, pages)), rejectsWith(/trailer: expected a post-apply checksum/));
  file.writeBigUInt64BE((1n << 63n) | 7n, file.length - 16);
  assert.deepEqual((await decodeFile(sign(file, pages))).pages, pages);
});

test('a file cut off anywhere says what was expected and where it ends', async () => {
  const { file, endOfPagesAt, indexAt, lengthAt, page2At } = sampleFile();
  const expected = (size: number): RegExp => {
    if (size < 100) return /expected the header, /;
    if (size > lengthAt + 8) return /expected the trailer, /;
    if (size >= indexAt)
      return size === lengthAt + 8 ? /expected the trailer, / : /expected the page index, /;
    if (size >= endOfPagesAt) return /expected a page or the end of the pages, /;
    if (size >= page2At && size < page2At + 6) return /expected a page or the end of the pages, /;
    if (size > page2At + 10 && size < page2At + 12) return /page 5: expected its LZ4 block, /;
    return /(page [259]: expected (the size of )?its LZ4 block|expected a page or the end)/;
  };
  for (let size = 0; size < file.length; size++) {
    const cut = file.subarray(0, size);
    const isRight = (error: unknown) =>
      rejectsWith(expected(size))(error) && `${error}`.endsWith(`found the end of the file at byte ${size}`);
    await assert.rejects(decodeFile(cut, 50), isRight, `${size} bytes`);
    await assert.rejects(decodeFile(cut, size + 1), isRight, `${size} bytes in one piece`);
  }
});

test('nothing may follow the end, in the same piece or another', async () => {
  const { file } = sampleFile();
  const longer = Buffer.concat([file, Buffer.alloc(1)]);
  for (const size of [longer.length, file.length, 7]) {
    await assert.rejects(
      decodeFile(longer, size),
      rejectsWith(/expected the end of the file at byte \d+, found more/),
    );
  }
  const withEmptyPieces = [new Uint8Array(0), file, new Uint8Array(0)];
  assert.equal((await decodeLtx('test.ltx', withEmptyPieces, {})).bytes, file.length);
});

test('a source that fails is let go, with its own error', async () => {
  const { file } = sampleFile();
  let closed = false;
  async function* failing() {
    try {
      yield file.subarray(0, 150);
      throw new Error('connection lost');
    } finally {
      closed = true;
    }
  }
  await assert.rejects(decodeLtx('test.ltx', failing(), {}), /connection lost/);
  assert.ok(closed);
});

test('what a visitor throws ends the reading and closes the source', async () => {
  let closed = false;
  function* source() {
    try {
      yield* inPieces(sampleFile().file, 100);
    } finally {
      closed = true;
    }
  }
  const full = () => {
    throw new Error('disk full');
  };
  await assert.rejects(decodeLtx('test.ltx', source(), { page: full }), /disk full/);
  assert.ok(closed);
});

test('a decoder that is pushed before it has asked says so instead of losing bytes', () => {
  const decoder = new LtxDecoder('test.ltx');
  decoder.push(new Uint8Array(5));
  assert.throws(() => decoder.push(new Uint8Array(5)), TypeError);
});

/** Changes one to four bytes, or cuts, repeats or swaps a part. */
function mutate(file: Buffer, random: Random): Buffer {
  const at = random.below(file.length);
  const other = random.below(file.length);
  switch (random.below(6)) {
    case 0:
      return file.subarray(0, at);
    case 1:
      return Buffer.concat([file.subarray(0, at), file.subarray(other)]);
    case 2:
      return Buffer.concat([file.subarray(0, at), random.bytes(random.below(40)), file.subarray(at)]);
    default: {
      const changed = Buffer.from(file);
      for (let i = random.below(4); i >= 0; i--)
        changed[random.below(file.length)] = random.oneIn(2) ? random.below(256) : 0xff;
      return changed;
    }
  }
}

test('a damaged file is refused or gives exactly what was written, and never anything else', async (t) => {
  const random = randomSource(t);
  let refused = 0;
  for (let round = 0; round < 40; round++) {
    const header = makeHeader({ pageSize: random.pick([512, 1024, 4096]), commit: 1 + random.below(6) });
    const pages = snapshotPages(header, random);
    const options = {
      blockSize: random.pick([100, 4096]),
      compressed: random.oneIn(2),
      contentChecksum: random.oneIn(2),
    };
    const sound = random.oneIn(3)
      ? frameFile(header, pages, (page) => lz4Frame(page, options))
      : encodeFile(header, pages);
    for (let i = 0; i < 60; i++) {
      const damaged = mutate(sound, random);
      try {
        const decoded = await decodeFile(damaged, 1 + random.below(damaged.length + 1));
        assert.deepEqual(decoded.header, header);
        assert.deepEqual(decoded.pages, pages);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        refused++;
      }
    }
  }
  assert.ok(refused > 1000);
});

test('bytes that only begin like an LTX file are refused, whatever they are', async (t) => {
  const random = randomSource(t);
  const { file } = sampleFile();
  for (let round = 0; round < 1000; round++) {
    const kept = random.pick([0, 4, 100, 106, 110]);
    const noise = Buffer.concat([file.subarray(0, kept), random.bytes(random.below(3000))]);
    await assert.rejects(decodeFile(noise, 1 + random.below(500)), FormatError);
  }
});

test('numbers in a file do not make the decoder gather more than a page', () => {
  const { file } = sampleFile({ pageSize: 512, commit: 0xfffffffe });
  const endless = Buffer.from(file.subarray(0, 110));
  // Flag 0 and a frame whose block claims 4 MB.
  endless.writeUInt16BE(0, 104);
  const decoder = new LtxDecoder('test.ltx');
  const frame = lz4Frame(new Uint8Array(512)).subarray(0, 7);
  decoder.push(Buffer.concat([endless.subarray(0, 106), frame, Buffer.of(0, 0, 0x40, 0)]));
  assert.equal(decoder.next(), 'header');
  assert.throws(() => decoder.next(), /expected an LZ4 block of 1 to 530 bytes, found 4194304/);
});
