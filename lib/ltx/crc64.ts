/**
 * CRC-64/GO-ISO: reflected, initial value and final XOR all ones; the check value of "123456789" is
 * b90956c775a41001.
 *
 * The polynomial is x^64 + x^4 + x^3 + x + 1. Its low part has degree 4, so the remainder of a whole 32-bit word
 * is four shifts of that word and no table is needed: a word that leaves the register at the low end re-enters
 * at the high end as w + w·x + w·x^3 + w·x^4 (reflected: shifts to the right by 0, 1, 3, 4), and the bits these shifts
 * push out of the high word are the top bits of the low one.
 */
export class Crc64 {
  #hi = -1;
  #lo = -1;
  /** Lets words be read at any alignment; kept while successive calls name the same buffer. */
  #view: DataView | undefined;

  /** Adds `length` bytes of `bytes` from `offset`. The range must lie inside `bytes`. */
  update(bytes: Uint8Array, offset = 0, length = bytes.length - offset): void {
    let view = this.#view;
    if (view === undefined || view.buffer !== bytes.buffer) {
      view = new DataView(bytes.buffer);
      this.#view = view;
    }
    let hi = this.#hi;
    let lo = this.#lo;
    let at = bytes.byteOffset + offset;
    const end = at + length;
    for (const wordsEnd = end - 3; at < wordsEnd; at += 4) {
      const w = lo ^ view.getInt32(at, true);
      lo = hi ^ (w << 31) ^ (w << 29) ^ (w << 28);
      hi = w ^ (w >>> 1) ^ (w >>> 3) ^ (w >>> 4);
    }
    for (; at < end; at++) {
      const b = (lo ^ view.getUint8(at)) & 0xff;
      lo = (lo >>> 8) | (hi << 24);
      hi = (hi >>> 8) ^ (b << 24) ^ (b << 23) ^ (b << 21) ^ (b << 20);
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
    this.#hi = -1;
    this.#lo = -1;
  }
}
