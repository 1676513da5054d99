import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lz4Bound, lz4Compress, lz4Decompress } from '../../lib/ltx/lz4.js';
import { randomSource } from '../support/random.js';
import { makePage, PAGE_SIZES } from './pages.js';

function compress(page: Uint8Array): Uint8Array {
  const out = new Uint8Array(lz4Bound(page.length) + 10);
  const size = lz4Compress(page, out, 10);
  return out.subarray(10, 10 + size);
}

/**
 * LZ4 as its specification reads, a byte at a time; also holds a compressor to the rules about a block's end.
 */
function slowDecompress(block: Uint8Array): { output: number[]; literalsAtEnd: number; lastMatchAt: number } {
  const output: number[] = [];
  let literalsAtEnd = 0;
  let lastMatchAt = 0;
  let at = 0;
  const length = (half: number): number => {
    let sum = half;
    if (half === 15) {
      let more = 255;
      while (more === 255) {
        more = block[at++];
        sum += more;
      }
    }
    return sum;
  };
  for (;;) {
    const token = block[at++];
    literalsAtEnd = length(token >> 4);
    output.push(...block.subarray(at, at + literalsAtEnd));
    at += literalsAtEnd;
    if (at === block.length) return { output, literalsAtEnd, lastMatchAt };
    const distance = block[at] | (block[at + 1] << 8);
    at += 2;
    lastMatchAt = output.length;
    for (let i = length(token & 15) + 4; i > 0; i--) output.push(output[output.length - distance]);
  }
}

test('pages of every size and kind come back from LZ4', (t) => {
  const random = randomSource(t);
  for (const size of PAGE_SIZES) {
    for (let round = 0; round < 12; round++) {
      const page = makePage(size, random);
      const block = compress(page);
      assert.ok(block.length <= lz4Bound(size));
      const output = new Uint8Array(size);
      assert.equal(lz4Decompress(block, 0, block.length, output), size);
      assert.deepEqual(output, page);
    }
  }
});

test('inputs of any length, none included, come back from LZ4', (t) => {
  const random = randomSource(t);
  for (let length = 0; length < 70; length++) {
    for (const page of [random.bytes(length), new Uint8Array(length)]) {
      const block = compress(page);
      const output = new Uint8Array(length);
      assert.equal(lz4Decompress(block, 0, block.length, output), length);
      assert.deepEqual(output, page);
    }
  }
});

test('blocks keep the rules of the specification about their end', (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 60; round++) {
    const page = makePage(random.pick([512, 1024, 4096]), random);
    const { output, literalsAtEnd, lastMatchAt } = slowDecompress(compress(page));
    assert.deepEqual(Uint8Array.from(output), page);
    assert.ok(literalsAtEnd >= 5);
    assert.ok(lastMatchAt <= page.length - 12);
  }
});

test('an empty page takes less than a hundredth, noise no more than the bound', (t) => {
  const random = randomSource(t);
  assert.ok(compress(new Uint8Array(4096)).length < 40);
  assert.ok(compress(random.bytes(4096)).length <= lz4Bound(4096));
});

test('a block written by hand decompresses: literals, an overlapping match, long lengths', () => {
  // "abc", then 3 back for 4+15+255+1 = 275 bytes, then "xyz12".
  const block = Uint8Array.of(0x3f, 0x61, 0x62, 0x63, 3, 0, 255, 1, 0x50, 0x78, 0x79, 0x7a, 0x31, 0x32);
  const output = new Uint8Array(3 + 275 + 5);
  assert.equal(lz4Decompress(block, 0, block.length, output), output.length);
  assert.equal(Buffer.from(output).toString(), `${'abc'.repeat(93).slice(0, 278)}xyz12`);
});

test('matches of every small distance repeat what they overlap', () => {
  for (let distance = 1; distance <= 20; distance++) {
    const start = Uint8Array.from({ length: 20 }, (_, i) => i + 1);
    const block = Uint8Array.of(0xff, 5, ...start, distance, 0, 100 - 19, 0x10, 0x77);
    const output = new Uint8Array(121);
    assert.equal(lz4Decompress(block, 0, block.length, output), 121);
    for (let i = 20; i < 120; i++)
      assert.equal(output[i], output[i - distance], `distance ${distance}, byte ${i}`);
    assert.equal(output[120], 0x77);
  }
});

test('malformed blocks are refused, whatever is wrong', () => {
  const refused: [string, number[]][] = [
    ['no bytes at all', []],
    ['literals that are not there', [0x40, 1, 2]],
    ['a length that never ends', [0xf0, 255, 255]],
    ['literals beyond the page', [0xf0, 200, ...new Array(215).fill(1)]],
    ['half a distance', [0x10, 1, 1]],
    ['a distance of 0', [0x10, 1, 0, 0, 0x10, 1]],
    ['a distance to before the page', [0x10, 1, 2, 0, 0x10, 1]],
    ['a match beyond the page', [0x1f, 1, 1, 0, 255, 0, 0x10, 1]],
    ['a match length that never ends', [0x1f, 1, 1, 0, 255]],
    ['no literals at the end', [0x10, 1, 1, 0]],
  ];
  for (const [what, bytes] of refused) {
    const page = new Uint8Array(100);
    const found = lz4Decompress(Uint8Array.from(bytes), 0, bytes.length, page);
    assert.ok(found < 0, what);
    assert.ok(~found <= bytes.length, what);
  }
});

/** A block's beginning that yields `count` bytes: eight literals and a match. */
function filler(count: number): number[] {
  let rest = count - 8 - 4 - 15;
  const lengths: number[] = [];
  for (; rest >= 255; rest -= 255) lengths.push(255);
  return [0x8f, 1, 2, 3, 4, 5, 6, 7, 8, 8, 0, ...lengths, rest];
}

test('the largest page is not overrun at its very end', () => {
  const page = new Uint8Array(65536);
  for (let filled = 65480; filled <= 65536; filled++) {
    // Sequences that yield 32 bytes each, more of them than there is room for.
    const short = new Array(8).fill([0xee, ...new Array(14).fill(9), 8, 0]).flat();
    const block = Uint8Array.from([...filler(filled), ...short, 0x50, 1, 2, 3, 4, 5]);
    assert.ok(lz4Decompress(block, 0, block.length, page) < 0, `${filled} bytes before`);
  }
  const endless = Uint8Array.from([...filler(70_000), 0x50, 1, 2, 3, 4, 5]);
  assert.ok(lz4Decompress(endless, 0, endless.length, page) < 0);
  const whole = Uint8Array.from([...filler(65531), 0x50, 1, 2, 3, 4, 5]);
  assert.equal(lz4Decompress(whole, 0, whole.length, page), 65536);
  assert.deepEqual([...page.subarray(65528)], [1, 2, 3, 1, 2, 3, 4, 5]);
});

test('random bytes and damaged blocks never write outside the page, nor hang', (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 3000; round++) {
    const size = random.pick([512, 1024, 4096]);
    const block = random.oneIn(3)
      ? random.bytes(random.below(200))
      : compress(makePage(size, random)).slice();
    for (let i = random.below(4); i >= 0; i--) block[random.below(block.length)] = random.below(256);
    const frame = new Uint8Array(size + 64).fill(0xee);
    const page = frame.subarray(32, 32 + size);
    const to = random.oneIn(3) ? random.below(block.length) : block.length;
    const end = lz4Decompress(block, 0, to, page);
    assert.ok(end <= size);
    assert.ok(frame.subarray(0, 32).every((byte) => byte === 0xee));
    assert.ok(frame.subarray(32 + Math.max(end, 0)).every((byte) => byte === 0xee));
  }
});
