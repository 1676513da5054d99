/**
 * CRC-64/GO-ISO: reflected, initial value and final XOR all ones; the check value of "123456789" is
 * b90956c775a41001.
 *
 * The polynomial is x^64 + x^4 + x^3 + x + 1. Its low part has degree 4, so no table is needed: a word w that
 * leaves the register at its low end comes in again at the high end as w·(x^4 + x^3 + x + 1), and in reflected
 * order these are shifts to the right by 0, 1, 3 and 4; what they push out of the high word belongs to the low
 * one. With y = w + w·x the sum is y + y·x^3, one operation less.
 *
 * The register is linear: after some bytes it is what it would be after as many zeros, plus what those bytes
 * leave in a register that began at 0 (their remainder). So bytes that go into two checksums need to be read
 * only once.
 */

/**
 * Bytes are copied here before they are read as words: at any alignment, and at addresses that the compiler
 * knows.
 */
const words = new Int32Array(16384);
const wordBytes = new Uint8Array(words.buffer);
/** Below this many bytes the copy costs more than it saves. */
const SHORT = 64;

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
    const count = bytes.length >>> 2;
    let hi = this.#hi;
    let lo = this.#lo;
    for (let i = 0; i < count; i++) {
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
