/**
 * The LZ4 block format, both ways (its specification is `lz4_Block_format.md` of the LZ4 project).
 *
 * A block is a row of sequences: a token (high half: number of literals, low half: length of the match less 4; 15
 * means that bytes to be added follow, up to the first that is not 255), the literals, the distance of the match as a
 * little-endian u16, the longer length if any. The last sequence has literals only. An encoder keeps two rules that decoders
 * may rely on: the last 5 bytes are literals, and the last match starts at least 12 bytes before the end.
 *
 * Both classes own the buffer of uncompressed bytes, so that it is aligned, has one view for its life and nothing is
 * allocated per block.
 */

const MIN_MATCH = 4;
const LAST_LITERALS = 5;
const MATCH_START_LIMIT = 12;
const MAX_DISTANCE = 65535;
const HASH_BITS = 12;
/** Knuth's multiplicative constant, 2654435761, as a signed word. */
const HASH_FACTOR = -1640531535;
const BASE_LIMIT = 1 << 30;

/** The largest block that `length` bytes can become: every byte a literal. */
export function lz4Bound(length: number): number {
  return length + Math.floor(length / 255) + 16;
}

/** Compresses up to `capacity` bytes put into `input` into one block. */
export class Lz4Compressor {
  /** Put the bytes to compress here, from 0. */
  readonly input: Uint8Array;
  readonly #words: DataView;
  /** Hash of four bytes → where they were last seen, plus #base: what earlier inputs left is below #base. */
  readonly #table = new Int32Array(1 << HASH_BITS);
  #base = 1;

  constructor(capacity: number) {
    this.input = new Uint8Array(capacity);
    this.#words = new DataView(this.input.buffer);
  }

  /**
   * Compresses the first `length` bytes of `input` into `out` from `outAt`, where lz4Bound(length) bytes must be
   * free. Returns the size of the block.
   */
  compress(length: number, out: Uint8Array, outAt: number): number {
    const src = this.input;
    const words = this.#words;
    const table = this.#table;
    if (this.#base > BASE_LIMIT) {
      table.fill(0);
      this.#base = 1;
    }
    const base = this.#base;
    this.#base += length;

    const lastStart = length - MATCH_START_LIMIT;
    const matchEnd = length - LAST_LITERALS;
    let anchor = 0;
    let at = 0;
    let op = outAt;
    let misses = 1 << 6;
    while (at <= lastStart) {
      const sequence = words.getInt32(at, true);
      const slot = Math.imul(sequence, HASH_FACTOR) >>> (32 - HASH_BITS);
      let ref = table[slot] - base;
      table[slot] = at + base;
      if (ref < 0 || at - ref > MAX_DISTANCE || words.getInt32(ref, true) !== sequence) {
        at += misses++ >> 6;
        continue;
      }
      misses = 1 << 6;
      let start = at;
      while (start > anchor && ref > 0 && src[start - 1] === src[ref - 1]) {
        start--;
        ref--;
      }
      const distance = start - ref;
      let end = at + MIN_MATCH;
      while (end < matchEnd - 3 && words.getInt32(end, true) === words.getInt32(end - distance, true))
        end += 4;
      while (end < matchEnd && src[end] === src[end - distance]) end++;

      const tokenAt = op;
      op = putLiterals(src, anchor, start - anchor, out, op);
      out[op++] = distance & 0xff;
      out[op++] = distance >>> 8;
      const longer = end - start - MIN_MATCH;
      if (longer < 15) {
        out[tokenAt] |= longer;
      } else {
        out[tokenAt] |= 15;
        op = putLength(longer - 15, out, op);
      }
      anchor = end;
      at = end;
      if (at <= lastStart) {
        const slotBefore = Math.imul(words.getInt32(at - 2, true), HASH_FACTOR) >>> (32 - HASH_BITS);
        table[slotBefore] = at - 2 + base;
      }
    }
    return putLiterals(src, anchor, length - anchor, out, op) - outAt;
  }
}

/** Writes a token with its literals; returns where the output goes on. */
function putLiterals(src: Uint8Array, from: number, count: number, out: Uint8Array, op: number): number {
  if (count < 15) {
    out[op++] = count << 4;
  } else {
    out[op++] = 0xf0;
    op = putLength(count - 15, out, op);
  }
  if (count > 48) {
    out.set(src.subarray(from, from + count), op);
  } else {
    for (let i = 0; i < count; i++) out[op + i] = src[from + i];
  }
  return op + count;
}

function putLength(rest: number, out: Uint8Array, op: number): number {
  while (rest >= 255) {
    out[op++] = 255;
    rest -= 255;
  }
  out[op++] = rest;
  return op;
}

/** Decompresses blocks into `output`, never beyond its end. Blocks may be hostile. */
export class Lz4Decompressor {
  readonly output: Uint8Array;

  constructor(capacity: number) {
    this.output = new Uint8Array(capacity);
  }

  /**
   * Decompresses the block `src[from..to)` into `output` from `outAt`; matches may reach back to `window`. Returns
   * where the output ends, or, if the block is malformed or does not fit, ~position of the byte in `src` that shows it
   * (a negative number).
   */
  decompress(src: Uint8Array, from: number, to: number, outAt = 0, window = outAt): number {
    const out = this.output;
    const capacity = out.length;
    let ip = from;
    let op = outAt;
    while (ip < to) {
      const token = src[ip++];
      let literals = token >>> 4;
      if (literals === 15) {
        let more = 255;
        while (more === 255) {
          if (ip >= to) return ~ip;
          more = src[ip++];
          literals += more;
        }
      }
      if (literals > to - ip || literals > capacity - op) return ~ip;
      if (literals > 48) {
        out.set(src.subarray(ip, ip + literals), op);
      } else {
        for (let i = 0; i < literals; i++) out[op + i] = src[ip + i];
      }
      ip += literals;
      op += literals;
      if (ip === to) return op;

      if (to - ip < 2) return ~ip;
      const distance = src[ip] | (src[ip + 1] << 8);
      if (distance === 0 || distance > op - window) return ~ip;
      ip += 2;
      let length = token & 15;
      if (length === 15) {
        let more = 255;
        while (more === 255) {
          if (ip >= to) return ~ip;
          more = src[ip++];
          length += more;
        }
      }
      length += MIN_MATCH;
      if (length > capacity - op) return ~ip;
      if (length > 48 && distance >= length) {
        out.copyWithin(op, op - distance, op - distance + length);
        op += length;
      } else {
        for (const end = op + length; op < end; op++) out[op] = out[op - distance];
      }
    }
    return ~ip;
  }
}
