/**
 * The page index of an LTX file: for every page, in the order of the pages, three uvarints (page number, offset
 * of the page header in the file, size of the page with its header), then a 0, then the length of all this as a
 * big-endian u64.
 *
 * A uvarint has seven bits a byte, the lowest first; the top bit says that another byte follows.
 */

import { FormatError } from '../errors.js';
import { decodeLtxHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE, type LtxHeader } from './header.js';
import { LTX_PAGE_HEADER_SIZE } from './page.js';
import { PageOrder } from './page-order.js';

/** No index entry is longer: a page number of 32 bits, an offset of 53, a size of 32. */
const MAX_ENTRY_SIZE = 5 + 8 + 5;
const LENGTH_SIZE = 8;
/** What readPageIndex reads first from the end of a file: the index of some 8000 pages. */
const TAIL_SIZE = 64 * 1024;

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
    this.#reserve(1 + LENGTH_SIZE);
    this.#put(0);
    const length = this.#length;
    new DataView(this.#bytes.buffer).setBigUint64(length, BigInt(length));
    this.#length += LENGTH_SIZE;
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

/**
 * The page whose entry in a finished index covers byte `position`; undefined if that is the end mark or the
 * length.
 */
export function pageOfIndexByte(index: Uint8Array, position: number): number | undefined {
  const reader = new UvarintReader(index);
  for (;;) {
    const pgno = reader.next();
    if (pgno === 0) return undefined;
    reader.next();
    reader.next();
    if (position < reader.at) return pgno;
  }
}

/** Where each page of a file is, for reading some of them without the rest. */
export class PageIndex {
  readonly header: LtxHeader;
  /** Ascending. */
  readonly pgnos: Uint32Array;
  /** Offset of each page, and where the last one ends. */
  readonly #offsets: Float64Array;

  constructor(header: LtxHeader, pgnos: Uint32Array, offsets: Float64Array) {
    this.header = header;
    this.pgnos = pgnos;
    this.#offsets = offsets;
  }

  /**
   * Where in the file page `pgno` is, in bytes, ready for decodePage(); undefined if the file does not have it.
   */
  find(pgno: number): { offset: number; length: number } | undefined {
    let low = 0;
    let high = this.pgnos.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const there = this.pgnos[middle];
      if (there === pgno) {
        const offset = this.#offsets[middle];
        return { offset, length: this.#offsets[middle + 1] - offset };
      }
      if (there < pgno) low = middle + 1;
      else high = middle - 1;
    }
    return undefined;
  }
}

/**
 * Reads the page index of a file of `size` bytes, called `name` in messages, with two or three calls of
 * `readRange`. Checks that the pages of the index are those the header allows and lie one behind the other up
 * to the index itself. Throws FormatError if not.
 */
export async function readPageIndex(
  readRange: (offset: number, length: number) => Promise<Uint8Array>,
  size: number,
  name: string,
): Promise<PageIndex> {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = await readRange(offset, length);
    if (bytes.length === length) return bytes;
    throw new FormatError(name, `expected ${length} bytes at byte ${offset}, found ${bytes.length}`);
  };
  const smallest = LTX_HEADER_SIZE + LTX_PAGE_HEADER_SIZE + 1 + LENGTH_SIZE + LTX_TRAILER_SIZE;
  if (size < smallest)
    throw new FormatError(name, `expected a file of ${smallest} bytes or more, found ${size}`);

  const tailOffset = Math.max(0, size - TAIL_SIZE);
  const tail = await read(tailOffset, size - tailOffset);
  const head = tailOffset === 0 ? tail : await read(0, LTX_HEADER_SIZE);
  const header = decodeLtxHeader(head, `${name}, header`);

  const end = size - LTX_TRAILER_SIZE - LENGTH_SIZE;
  const length = Number(new DataView(tail.buffer, tail.byteOffset).getBigUint64(end - tailOffset));
  const limit = Math.min(
    end - LTX_HEADER_SIZE - LTX_PAGE_HEADER_SIZE,
    header.commit * MAX_ENTRY_SIZE + 1, // No page stands there twice.
  );
  if (length < 1 || length > limit) {
    throw new FormatError(`${name}, page index`, `expected a length of 1 to ${limit}, found ${length}`);
  }
  const start = end - length;
  const index =
    start >= tailOffset ? tail.subarray(start - tailOffset, end - tailOffset) : await read(start, length);
  return decodePageIndex(index, header, start - LTX_PAGE_HEADER_SIZE, name);
}

/** `pagesEnd` is where the pages of the file end. */
function decodePageIndex(index: Uint8Array, header: LtxHeader, pagesEnd: number, name: string): PageIndex {
  const where = `${name}, page index`;
  // Each number has one byte without the top bit; the last number is the end mark.
  let numbers = 0;
  for (let i = 0; i < index.length; i++) if (index[i] < 0x80) numbers++;
  const count = (numbers - 1) / 3;
  if (!Number.isInteger(count) || index[index.length - 1] !== 0) {
    throw new FormatError(where, `expected three numbers a page and an end mark, found ${numbers} numbers`);
  }
  const pgnos = new Uint32Array(count);
  const offsets = new Float64Array(count + 1);
  const order = new PageOrder(header, where);
  const reader = new UvarintReader(index);
  let offset = LTX_HEADER_SIZE;
  for (let i = 0; i < count; i++) {
    const pgno = reader.next();
    order.take(pgno);
    const found = reader.next();
    const size = reader.next();
    if (found !== offset || size <= LTX_PAGE_HEADER_SIZE || size > pagesEnd - offset) {
      throw new FormatError(
        `${where}, page ${pgno}`,
        `expected the page at byte ${offset} and to end by byte ${pagesEnd}, found it at byte ${found} with ${size} bytes`,
      );
    }
    pgnos[i] = pgno;
    offsets[i] = offset;
    offset += size;
  }
  order.finish();
  if (offset !== pagesEnd) {
    throw new FormatError(
      where,
      `expected the pages to end at byte ${pagesEnd}, found their end at byte ${offset}`,
    );
  }
  offsets[count] = offset;
  return new PageIndex(header, pgnos, offsets);
}

/**
 * Reads uvarints one after another. One too large for a double comes out as Infinity, which no use of it
 * allows.
 */
class UvarintReader {
  at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  next(): number {
    const bytes = this.#bytes;
    let value = 0;
    let unit = 1;
    for (; bytes[this.at] >= 0x80; this.at++) {
      const bits = bytes[this.at] & 0x7f;
      // Zeros must not meet a unit of Infinity: the product would be NaN, which passes comparisons.
      if (bits !== 0) value += bits * unit;
      unit *= 0x80;
    }
    const bits = bytes[this.at++];
    return bits === 0 ? value : value + bits * unit;
  }
}
