/**
 * CRC-64/GO-ISO: reflected, initial value and final XOR all ones; the check value of "123456789" is
 * b90956c775a41001.
 *
 * The polynomial is x^64 + x^4 + x^3 + x + 1. Its low part has degree 4, so no table is needed: a word w that
 * leaves the register at its low end comes in again at the high end as w·(x^4 + x^3 + x + 1), and in reflected
 * order these are shifts to the right by 0, 1, 3 and 4; what they push out of the high word belongs to the low
 * one. With y = w + w·x the sum is y + y·x^3, one operation less.
 *
 * Long runs go another way first. Squaring is linear over bits, so from x^64 = x^4 + x^3 + x + 1 (mod P) follows
 * x^2048 = x^128 + x^96 + x^32 + 1: all multiples of 32. So a word can be taken out if it is added, as it is, to the
 * words that stand 60, 61, 63 and 64 places behind it: no shift, and no word waits for the one before it. What is left
 * at the end are 64 words, which have the remainder of all.
 *
 * The register is linear: after some bytes it is what it would be after as many zeros, plus what those bytes
 * leave in a register that began at 0 (their remainder). So bytes that go into two checksums need to be read
 * only once.
 */

/**
 * Bytes are copied here before they are read as words: at any alignment, and at addresses that the compiler
 * knows.
 */
const words = new Int32Array(4 + 16384);
/** Words begin here. The four before them are zeros, and stay so: what the first words would have been added from. */
const FIRST = 4;
const wordBytes = new Uint8Array(words.buffer, 4 * FIRST);
/** Below this many bytes the copy costs more than it saves. */
const SHORT = 64;
/** How many words folding leaves. */
const FOLDED = 64;

export class Crc64 {
  static readonly #zerosTables = new Map<number, Int32Array>();

  readonly #start: -1 | 0;
  #hi: number;
  #lo: number;

  /** Begins with all ones for a checksum, with 0 for a remainder. */
  constructor(start: -1 | 0 = -1) {
    this.#start = start;
    this.#hi = start;
    this.#lo = start;
  }

  /** Adds `length` bytes of `bytes` from `offset`. The range must lie inside `bytes`. */
  update(bytes: Uint8Array, offset = 0, length = bytes.length - offset): void {
    let from = offset;
    const to = offset + length;
    while (to - from >= SHORT) {
      const size = Math.min(to - from, wordBytes.length) & ~3;
      this.#addWords(size === bytes.length ? bytes : bytes.subarray(from, from + size));
      from += size;
    }
    let hi = this.#hi;
    let lo = this.#lo;
    for (; from < to; from++) {
      const b = (lo ^ bytes[from]) & 0xff;
      lo = (lo >>> 8) | (hi << 24);
      hi = (hi >>> 8) ^ (b << 24) ^ (b << 23) ^ (b << 21) ^ (b << 20);
    }
    this.#hi = hi;
    this.#lo = lo;
  }

  /**
   * Adds `length` bytes of which only the remainder is at hand. `length` is one of a few: a table is kept for
   * each.
   */
  append(remainder: Crc64, length: number): void {
    const zeros = Crc64.#zerosTable(length);
    let hi = remainder.#hi;
    let lo = remainder.#lo;
    for (let digit = 0, row = 0; digit < 8; digit++, row += 64) {
      const low = row + 2 * ((this.#lo >>> (4 * digit)) & 15);
      const high = row + 2 * ((this.#hi >>> (4 * digit)) & 15) + 32;
      lo ^= zeros[low] ^ zeros[high];
      hi ^= zeros[low + 1] ^ zeros[high + 1];
    }
    this.#hi = hi;
    this.#lo = lo;
  }

  /** The checksum of everything added so far. More may be added afterwards. */
  value(): bigint {
    return (BigInt(~this.#hi >>> 0) << 32n) | BigInt(~this.#lo >>> 0);
  }

  /** The upper 32 bits of `value()`, unsigned; for loops that must not allocate. */
  get high(): number {
    return ~this.#hi >>> 0;
  }

  /** The lower 32 bits of `value()`, unsigned. */
  get low(): number {
    return ~this.#lo >>> 0;
  }

  /** Forgets everything added. */
  reset(): void {
    this.#hi = this.#start;
    this.#lo = this.#start;
  }

  #addWords(bytes: Uint8Array): void {
    wordBytes.set(bytes);
    const end = FIRST + (bytes.length >>> 2);
    let hi = this.#hi;
    let lo = this.#lo;
    let from = FIRST;
    if (end - FIRST >= 2 * FOLDED) {
      words[FIRST] ^= lo;
      words[FIRST + 1] ^= hi;
      lo = 0;
      hi = 0;
      fold(end);
      from = end - FOLDED;
    }
    for (let i = from; i < end; i++) {
      const w = lo ^ words[i];
      const y = w ^ (w >>> 1);
      lo = hi ^ (w << 31) ^ ((w << 29) ^ (w << 28));
      hi = y ^ (y >>> 3);
    }
    this.#hi = hi;
    this.#lo = lo;
  }

  /**
   * For digit d of lo and then of hi, 16 pairs (lo, hi): what `length` zeros make of a register with only that
   * digit.
   */
  static #zerosTable(length: number): Int32Array {
    let table = Crc64.#zerosTables.get(length);
    if (table !== undefined) return table;
    table = new Int32Array(8 * 64);
    const zeros = new Uint8Array(length);
    const register = new Crc64();
    for (let row = 0; row < 16; row++) {
      const at = 32 * row;
      const shift = 4 * (row >>> 1);
      for (let n = 1; n < 16; n++) {
        const rest = n & (n - 1);
        if (rest === 0) {
          register.#lo = row % 2 === 0 ? n << shift : 0;
          register.#hi = row % 2 === 0 ? 0 : n << shift;
          register.update(zeros);
          table[at + 2 * n] = register.#lo;
          table[at + 2 * n + 1] = register.#hi;
        } else {
          const bit = n ^ rest;
          table[at + 2 * n] = table[at + 2 * rest] ^ table[at + 2 * bit];
          table[at + 2 * n + 1] = table[at + 2 * rest + 1] ^ table[at + 2 * bit + 1];
        }
      }
    }
    Crc64.#zerosTables.set(length, table);
    return table;
  }
}

/**
 * Adds each word up to `end` to those behind it, except for the last FOLDED. From the point of view of the word that is
 * added to: each is the sum of itself and those 60, 61, 63 and 64 before it, of which the very last words are kept.
 */
function fold(end: number): void {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = FIRST + 60;
  for (; i < end - 7; i += 4) {
    const e = words[i - 60];
    const f = words[i - 59];
    const g = words[i - 58];
    const h = words[i - 57];
    words[i] ^= e ^ d ^ b ^ a;
    words[i + 1] ^= f ^ e ^ c ^ b;
    words[i + 2] ^= g ^ f ^ d ^ c;
    words[i + 3] ^= h ^ g ^ e ^ d;
    a = e;
    b = f;
    c = g;
    d = h;
  }
  const kept = end - FOLDED;
  for (; i < end; i++) {
    let word = words[i] ^ words[i - 64];
    if (i - 63 < kept) word ^= words[i - 63];
    if (i - 61 < kept) word ^= words[i - 61];
    if (i - 60 < kept) word ^= words[i - 60];
    words[i] = word;
  }
}
