import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { decodePage } from '../../lib/ltx/page.js';
import { xxHash32 } from '../../lib/ltx/xxhash32.js';
import { randomSource } from '../support/random.js';
import { type FrameOptions, frameFile, lz4Frame } from './frames.js';
import { decodeFile, makeHeader, makePage, snapshotPages } from './pages.js';

/** The page that an LTX file holds as this frame. */
function pageOfFrame(frame: Uint8Array, size: number): Uint8Array {
  const page = new Uint8Array(size);
  decodePage(Buffer.concat([Buffer.of(0, 0, 0, 7, 0, 0), frame]), 7, page, 'test.ltx');
  return page;
}

const OPTIONS: FrameOptions[] = [
  {},
  { contentChecksum: false },
  { contentSize: true },
  { blockChecksum: true, contentSize: true },
  { compressed: false },
  { compressed: false, blockChecksum: true },
  { blockSize: 100 },
  { blockSize: 1000, blockChecksum: true },
];

test('xxHash32 has the values of its definition', () => {
  const hash = (text: string) => xxHash32(new TextEncoder().encode(text));
  assert.equal(hash(''), 0x02cc5d05);
  assert.equal(hash('abc'), 0x32d153ff);
  assert.equal(hash('Nobody inspects the spammish repetition'), 0xe2293b2f);
});

test('frames with every option are read', (t) => {
  const random = randomSource(t);
  for (const options of OPTIONS) {
    const page = makePage(4096, random);
    assert.deepEqual(pageOfFrame(lz4Frame(page, options), 4096), page, JSON.stringify(options));
  }
});

test('a match may reach into the block before if the frame says that blocks are linked', () => {
  const first = Buffer.of(0x80, ...Buffer.from('abcdefgh'));
  // No literals, 8 back for 19 bytes, then five literals.
  const second = Buffer.of(0x0f, 8, 0, 0, 0x50, ...Buffer.from('12345'));
  const frame = (flags: number) => {
    const hash = (xxHash32(Buffer.of(flags, 0x40)) >>> 8) & 0xff;
    const header = Buffer.of(0x04, 0x22, 0x4d, 0x18, flags, 0x40, hash);
    const size = (block: Buffer) => Buffer.of(block.length, 0, 0, 0);
    return Buffer.concat([header, size(first), first, size(second), second, Buffer.alloc(4)]);
  };
  assert.equal(Buffer.from(pageOfFrame(frame(0x40), 32)).toString(), 'abcdefghabcdefghabcdefghabc12345');
  assert.throws(() => pageOfFrame(frame(0x60), 32), FormatError);
});

test('damaged frames are refused, each with its reason', (t) => {
  const page = makePage(1024, randomSource(t), 'text');
  const options = { blockChecksum: true, contentSize: true, blockSize: 512 };
  const sound = lz4Frame(page, options);
  const change = (at: number, byte: number) => {
    const frame = Buffer.from(sound);
    frame[at < 0 ? frame.length + at : at] ^= byte;
    return frame;
  };
  const cases: [string, Uint8Array, RegExp][] = [
    ['magic', change(0, 1), /expected an LZ4 frame/],
    ['version', change(4, 0x80), /version 1/],
    ['a dictionary', change(4, 1), /without dictionary/],
    ['largest block', change(5, 0x70), /largest LZ4 block/],
    ['content size', change(7, 1), /expected 1024 bytes/],
    ['descriptor hash', change(14, 1), /descriptor/],
    ['block size', change(17, 0x40), /LZ4 block of 1 to/],
    ['block checksum', change(30, 1), /xxHash32/],
    ['content checksum', change(-1, 1), /xxHash32/],
    ['too little', lz4Frame(page.subarray(0, 1000)), /expected 1024 bytes/],
    ['too much', lz4Frame(Buffer.concat([page, page.subarray(0, 1)])), /LZ4/],
    ['too much, not compressed', lz4Frame(Buffer.concat([page, page]), { compressed: false }), /1 to 1024/],
    ['cut off', sound.subarray(0, -1), /expected an LZ4 frame/],
    ['bytes behind it', Buffer.concat([sound, Buffer.alloc(1)]), /expected an LZ4 frame of/],
  ];
  for (const [what, frame, reason] of cases) {
    assert.throws(() => pageOfFrame(frame, 1024), reason, what);
  }
});

test('a block that holds nothing ends the reading instead of going on for ever', () => {
  const nothing = lz4Frame(new Uint8Array(0), { blockSize: 1 }).subarray(0, 7);
  const frame = Buffer.concat([nothing, Buffer.of(1, 0, 0, 0, 0), Buffer.of(1, 0, 0, 0, 0)]);
  assert.throws(() => pageOfFrame(frame, 512), /expected content/);
});

test('files with frames are decoded in pieces of any size', async (t) => {
  const random = randomSource(t);
  for (const options of OPTIONS) {
    const header = makeHeader({ commit: 6 });
    const pages = snapshotPages(header, random);
    const file = frameFile(header, pages, (page) => lz4Frame(page, options));
    for (const size of [1, 1 + random.below(300), file.length]) {
      assert.deepEqual((await decodeFile(file, size)).pages, pages, JSON.stringify(options));
    }
  }
});
