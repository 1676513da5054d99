/**
 * Page sums as bytes: a header, 8 bytes a page, a checksum. The header binds them to the LTX file whose state they
 * describe, so that they are believed only where that very file stands.
 *
 * Header, 32 bytes: magic · TXID u64 · checksum in that file's trailer u64 · page size u32 · pages u32. Then for each page
 * its sum (page-sums.ts), then the CRC-64 of everything before. All big-endian.
 */

import { Crc64 } from '../ltx/crc64.js';
import type { FrozenSums, PageSums } from './page-sums.js';

const MAGIC = 'JLPS0001';
export const SUMS_HEADER_SIZE = 32;
export const SUMS_END_SIZE = 8;

/** Which state of which replica the sums describe. */
export interface SumsOrigin {
  readonly txid: bigint;
  /** The checksum in the trailer of the file that ends at that TXID. */
  readonly fileChecksum: bigint;
}

/** The sums in blocks whose lengths are multiples of 8; the first is the header. */
export function* encodeSums(
  sums: PageSums | FrozenSums,
  origin: SumsOrigin,
  pageSize: number,
): Generator<Uint8Array> {
  const crc = new Crc64();
  const header = Buffer.alloc(SUMS_HEADER_SIZE);
  header.write(MAGIC, 'latin1');
  header.writeBigUInt64BE(origin.txid, 8);
  header.writeBigUInt64BE(origin.fileChecksum, 16);
  header.writeUInt32BE(pageSize, 24);
  header.writeUInt32BE(sums.pageCount, 28);
  crc.update(header);
  yield header;
  for (const bytes of sums.serialise()) {
    crc.update(bytes);
    yield bytes;
  }
  const end = Buffer.alloc(SUMS_END_SIZE);
  end.writeBigUInt64BE(crc.value());
  yield end;
}

/** Takes bytes of whatever origin into empty sums; what it took is worth something only if `end` says so. */
export class SumsDecoder {
  readonly #sums: PageSums;
  readonly #pageSize: number;
  readonly #crc = new Crc64();
  #origin: SumsOrigin | undefined;
  #pageCount = 0;
  #loaded = 0;
  #isSound = true;
  #ended = false;

  constructor(sums: PageSums, pageSize: number) {
    this.#sums = sums;
    this.#pageSize = pageSize;
  }

  /** What the header says, once it was there; undefined if it is none, or one of another page size. */
  get origin(): SumsOrigin | undefined {
    return this.#origin;
  }

  /** Size of the database in pages, by the header. */
  get pageCount(): number {
    return this.#pageCount;
  }

  /** The next bytes, a multiple of 8, the first ones with the whole header. False if they are not sound. */
  push(bytes: Uint8Array): boolean {
    this.#isSound &&= this.#take(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    return this.#isSound;
  }

  /** What the sums describe; undefined if they are incomplete or damaged. */
  end(): SumsOrigin | undefined {
    return this.#isSound && this.#ended ? this.#origin : undefined;
  }

  #take(bytes: Buffer): boolean {
    let at = 0;
    if (this.#origin === undefined) {
      if (bytes.length < SUMS_HEADER_SIZE || bytes.toString('latin1', 0, 8) !== MAGIC) return false;
      if (bytes.readUInt32BE(24) !== this.#pageSize) return false;
      this.#origin = { txid: bytes.readBigUInt64BE(8), fileChecksum: bytes.readBigUInt64BE(16) };
      this.#pageCount = bytes.readUInt32BE(28);
      this.#crc.update(bytes, 0, SUMS_HEADER_SIZE);
      at = SUMS_HEADER_SIZE;
    }
    const pages = Math.min(Math.floor((bytes.length - at) / 8), this.#pageCount - this.#loaded);
    if (pages > 0) {
      this.#crc.update(bytes, at, pages * 8);
      this.#sums.load(this.#loaded + 1, bytes.subarray(at, at + pages * 8));
      this.#loaded += pages;
      at += pages * 8;
    }
    if (at === bytes.length) return true;
    if (this.#ended || bytes.length - at !== SUMS_END_SIZE) return false;
    this.#ended = true;
    return bytes.readBigUInt64BE(at) === this.#crc.value();
  }
}
