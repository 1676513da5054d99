/**
 * The page index of an LTX file: for every page, in the order of the pages, three uvarints (page number, offset of
 * the page header in the file, size of the page with its header), then a 0, then the length of all this as a big-endian u64.
 *
 * A uvarint has seven bits a byte, the lowest first; the top bit says that another byte follows.
 */

/** No index entry is longer: a page number of 32 bits, an offset of 53, a size of 32. */
const MAX_ENTRY_SIZE = 5 + 8 + 5;

/** Builds the index while the pages go by. The only memory that grows with a file: about 8 bytes a page. */
export class PageIndexBuilder {
  #bytes = new Uint8Array(1024);
  #length = 0;

  add(pgno: number, offset: number, size: number): void {
    this.#reserve(MAX_ENTRY_SIZE);
    this.#put(pgno);
    this.#put(offset);
    this.#put(size);
  }

  /** The index with its end mark and length, as it stands in the file. Nothing may be added afterwards. */
  finish(): Uint8Array {
    this.#reserve(9);
    this.#put(0);
    const length = this.#length;
    new DataView(this.#bytes.buffer).setBigUint64(length, BigInt(length));
    this.#length += 8;
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(size: number): void {
    if (this.#length + size <= this.#bytes.length) return;
    const larger = new Uint8Array(this.#bytes.length * 2);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  #put(n: number): void {
    const bytes = this.#bytes;
    let at = this.#length;
    while (n >= 0x80) {
      bytes[at++] = (n % 0x80) | 0x80;
      n = Math.floor(n / 0x80);
    }
    bytes[at++] = n;
    this.#length = at;
  }
}

/** The page whose entry in a finished index covers byte `position`; undefined if that is the end mark or the length. */
export function pageOfIndexByte(index: Uint8Array, position: number): number | undefined {
  let at = 0;
  while (index[at] !== 0) {
    const pgno = uvarintAt(index, at);
    for (let numbers = 0; numbers < 3; numbers++) {
      while (index[at] >= 0x80) at++;
      at++;
    }
    if (position < at) return pgno;
  }
  return undefined;
}

function uvarintAt(bytes: Uint8Array, at: number): number {
  let value = 0;
  let unit = 1;
  for (; bytes[at] >= 0x80; at++) {
    value += (bytes[at] & 0x7f) * unit;
    unit *= 0x80;
  }
  return value + bytes[at] * unit;
}
