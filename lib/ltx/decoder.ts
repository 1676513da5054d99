/**
 * Reads an LTX file as it comes in, verifying everything: the mirror of the encoder.
 *
 * 1. Every length is checked before bytes are gathered for it. What is kept does not depend on any number in
 *    the file except the page size: at most one page as it was compressed, one page, and the index of the pages
 *    seen.
 * 2. Pages stand where PageOrder allows them, and each decompresses to exactly one page.
 * 3. The page index must be, byte for byte, the index of the pages seen; it is compared as it comes in.
 * 4. The file checksum holds, and nothing follows it.
 *
 * Until a file has ended its pages are unproven: a caller must not publish what it made of them before `end()`
 * (or decodeLtx) returned.
 */

import { FormatError } from '../errors.js';
import { Crc64 } from './crc64.js';
import {
  decodeLtxHeader,
  formatTxid,
  LTX_CHECKSUM_FLAG,
  LTX_FLAG_NO_CHECKSUM,
  LTX_HEADER_SIZE,
  LTX_TRAILER_SIZE,
  type LtxHeader,
} from './header.js';
import { lz4Bound } from './lz4.js';
import { Lz4FrameReader } from './lz4-frame.js';
import {
  blockSizeFault,
  decodeBlock,
  LTX_BLOCK_HEADER_SIZE,
  LTX_PAGE_FLAG_BLOCK,
  LTX_PAGE_HEADER_SIZE,
} from './page.js';
import { PageIndexBuilder, pageOfIndexByte } from './page-index.js';
import { PageOrder } from './page-order.js';

/** The index is compared in pieces of this size. */
const INDEX_PIECE = 4096;

/** What next() found: `more` asks for push() or end(), `end` says that the file is whole and sound. */
export type LtxEvent = 'more' | 'header' | 'page' | 'end';

export interface LtxSummary {
  readonly header: LtxHeader;
  readonly pageCount: number;
  /** Size of the file. */
  readonly bytes: number;
  /** The CRC-64 of the trailer, top bit set. */
  readonly fileChecksum: bigint;
}

/**
 * push() a piece of the file, then call next() until it says `more` (or `end`); after the last piece call
 * end(). A piece must stay unchanged until next() has said `more`. Methods throw FormatError, which names the
 * file and the page, and nothing may be called after that.
 */
export class LtxDecoder {
  readonly #name: string;
  readonly #checksum = new Crc64();
  readonly #remainder = new Crc64(0);
  readonly #index = new PageIndexBuilder();
  /** What the next bytes are, as a message says it. */
  #expected = 'the header';
  #step: () => LtxEvent | undefined = this.#readHeader;
  /** Bytes the next step wants. */
  #need = LTX_HEADER_SIZE;

  #chunk: Uint8Array = new Uint8Array(0);
  #chunkAt = 0;
  /** The beginning of a step's bytes, when they are spread over pieces. */
  #carry = new Uint8Array(LTX_HEADER_SIZE);
  #carried = 0;
  /** The step's bytes: `#need` of them. */
  #bytes: Uint8Array = this.#carry;
  #at = 0;
  /** Bytes of the file in the steps before. */
  #offset = 0;

  #header: LtxHeader | undefined;
  #order!: PageOrder;
  #page: Uint8Array = new Uint8Array(0);
  #frame!: Lz4FrameReader;
  #pgno = 0;
  #pageOffset = 0;
  #pageBegun = false;
  #pageCount = 0;
  #blockTo = 0;
  #blockFrom = 0;
  #expectedIndex: Uint8Array = new Uint8Array(0);
  #indexAt = 0;
  #fileChecksum = 0n;
  #ended = false;

  /** `name` is the file's, for messages. */
  constructor(name: string) {
    this.#name = name;
  }

  /** The header, once next() has returned it. */
  get header(): LtxHeader | undefined {
    return this.#header;
  }

  /** The number of the page that next() returned. */
  get pgno(): number {
    return this.#pgno;
  }

  /** Where in the file the page that next() returned begins with its header, bytes. */
  get pageOffset(): number {
    return this.#pageOffset;
  }

  /** Bytes that page takes in the file, header and all. */
  get pageBytes(): number {
    return this.#offset - this.#pageOffset;
  }

  /** The page that next() returned. The same array every time: copy to keep. */
  get page(): Uint8Array {
    return this.#page;
  }

  /** The CRC-64 remainder of the page that next() returned, valid until the following next(). */
  get remainder(): Crc64 {
    return this.#remainder;
  }

  /**
   * The LZ4 block of the page that next() returned, valid until the following next(): `bytes[from..to)`. Empty
   * if the page came as an LZ4 frame.
   */
  get block(): { bytes: Uint8Array; from: number; to: number } {
    return { bytes: this.#bytes, from: this.#blockFrom, to: this.#blockTo };
  }

  push(chunk: Uint8Array): void {
    if (this.#chunkAt < this.#chunk.length) throw new TypeError('push() before next() has asked for more');
    // A plain Uint8Array also of a Buffer, whose subarray() is slow and would be called for every page.
    this.#chunk = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#chunkAt = 0;
  }

  next(): LtxEvent {
    for (;;) {
      if (this.#ended) return this.#expectNothing();
      if (!this.#gather()) return 'more';
      const taken = this.#need;
      const event = this.#step();
      if (!this.#ended) this.#offset += taken;
      if (event !== undefined) return event;
    }
  }

  /** Says that the file has no more bytes. Throws FormatError unless next() has returned `end`. */
  end(): LtxSummary {
    if (!this.#ended) {
      const size = this.#offset + this.#carried;
      const where = this.#pageBegun ? `${this.#name}, page ${this.#pgno}` : this.#name;
      throw new FormatError(where, `expected ${this.#expected}, found the end of the file at byte ${size}`, {
        hint: 'The file is truncated.',
      });
    }
    this.#expectNothing();
    return {
      header: this.#header!,
      pageCount: this.#pageCount,
      bytes: this.#offset,
      fileChecksum: this.#fileChecksum,
    };
  }

  /** Makes #need bytes available at #bytes[#at]; false if they have not all come yet. */
  #gather(): boolean {
    const need = this.#need;
    const available = this.#chunk.length - this.#chunkAt;
    if (this.#carried === 0 && available >= need) {
      this.#bytes = this.#chunk;
      this.#at = this.#chunkAt;
      this.#chunkAt += need;
      return true;
    }
    const count = Math.min(need - this.#carried, available);
    if (count > 0) {
      this.#carry.set(this.#chunk.subarray(this.#chunkAt, this.#chunkAt + count), this.#carried);
      this.#chunkAt += count;
      this.#carried += count;
    }
    if (this.#carried < need) return false;
    this.#bytes = this.#carry;
    this.#at = 0;
    this.#carried = 0;
    return true;
  }

  #goOn(step: () => LtxEvent | undefined, need: number, expected: string): void {
    this.#step = step;
    this.#need = need;
    this.#expected = expected;
  }

  #readHeader(): LtxEvent {
    const bytes = this.#bytes.subarray(this.#at, this.#at + LTX_HEADER_SIZE);
    const header = decodeLtxHeader(bytes, `${this.#name}, header`);
    this.#checksum.update(bytes);
    this.#header = header;
    this.#order = new PageOrder(header, this.#name);
    this.#page = new Uint8Array(header.pageSize);
    this.#frame = new Lz4FrameReader(this.#page);
    this.#carry = new Uint8Array(Math.max(INDEX_PIECE, LTX_BLOCK_HEADER_SIZE + lz4Bound(header.pageSize)));
    this.#expectPage();
    return 'header';
  }

  #expectPage(): void {
    this.#goOn(this.#readPageHeader, LTX_PAGE_HEADER_SIZE, 'a page or the end of the pages');
  }

  #readPageHeader(): undefined {
    this.#checksum.update(this.#bytes, this.#at, LTX_PAGE_HEADER_SIZE);
    const pgno = this.#u32(0);
    const flags = this.#u16(4);
    if (pgno === 0 && flags === 0) {
      this.#order.finish();
      this.#expectedIndex = this.#index.finish();
      this.#expectIndex();
      return;
    }
    this.#order.take(pgno);
    this.#pgno = pgno;
    this.#pageOffset = this.#offset;
    this.#pageBegun = true;
    if (flags === LTX_PAGE_FLAG_BLOCK) {
      this.#goOn(this.#readBlockSize, 4, 'the size of its LZ4 block');
    } else if (flags === 0) {
      this.#frame.start();
      this.#goOn(this.#readFrame, this.#frame.need, 'its LZ4 frame');
    } else {
      this.#refuse(`expected page flags 0 or ${LTX_PAGE_FLAG_BLOCK}, found ${flags}`);
    }
  }

  #readBlockSize(): undefined {
    this.#checksum.update(this.#bytes, this.#at, 4);
    const size = this.#u32(0);
    const fault = blockSizeFault(size, this.#page.length);
    if (fault !== undefined) this.#refuse(fault);
    this.#goOn(this.#readBlock, size, 'its LZ4 block');
  }

  #readBlock(): LtxEvent {
    this.#blockFrom = this.#at;
    this.#blockTo = this.#at + this.#need;
    const fault = decodeBlock(this.#bytes, this.#blockFrom, this.#blockTo, this.#page);
    if (fault !== undefined) this.#refuse(fault);
    return this.#endPage();
  }

  #readFrame(): LtxEvent | undefined {
    const done = this.#frame.feed(this.#bytes, this.#at);
    if (done === false) {
      this.#need = this.#frame.need;
      return undefined;
    }
    if (done !== true) this.#refuse(done);
    this.#blockFrom = 0;
    this.#blockTo = 0;
    return this.#endPage();
  }

  #endPage(): LtxEvent {
    this.#remainder.reset();
    this.#remainder.update(this.#page);
    this.#checksum.append(this.#remainder, this.#page.length);
    this.#index.add(this.#pgno, this.#pageOffset, this.#offset + this.#need - this.#pageOffset);
    this.#pageCount++;
    this.#pageBegun = false;
    this.#expectPage();
    return 'page';
  }

  #expectIndex(): void {
    const left = this.#expectedIndex.length - this.#indexAt;
    if (left > 0) this.#goOn(this.#readIndex, Math.min(left, INDEX_PIECE), 'the page index');
    else this.#goOn(this.#readTrailer, LTX_TRAILER_SIZE, 'the trailer');
  }

  #readIndex(): undefined {
    const size = this.#need;
    for (let i = 0; i < size; i++) {
      if (this.#bytes[this.#at + i] !== this.#expectedIndex[this.#indexAt + i]) {
        const pgno = pageOfIndexByte(this.#expectedIndex, this.#indexAt + i);
        const what = pgno === undefined ? 'its end mark and its length' : `page ${pgno} where that page is`;
        throw new FormatError(
          `${this.#name}, page index`,
          `expected ${what}, found otherwise at byte ${this.#offset + i}`,
        );
      }
    }
    this.#checksum.update(this.#bytes, this.#at, size);
    this.#indexAt += size;
    this.#expectIndex();
  }

  #readTrailer(): LtxEvent {
    const where = `${this.#name}, trailer`;
    const postApply = this.#u64(0);
    if (this.#header!.flags === LTX_FLAG_NO_CHECKSUM) {
      if (postApply !== 0n) {
        throw new FormatError(where, `expected no post-apply checksum, found ${formatTxid(postApply)}`);
      }
    } else if (postApply < LTX_CHECKSUM_FLAG) {
      throw new FormatError(
        where,
        `expected a post-apply checksum with its top bit set, found ${formatTxid(postApply)}`,
      );
    }
    this.#checksum.update(this.#bytes, this.#at, 8);
    const actual = this.#checksum.value() | LTX_CHECKSUM_FLAG;
    const stated = this.#u64(8);
    if (actual !== stated) {
      throw new FormatError(
        where,
        `expected contents with checksum ${formatTxid(stated)}, found ${formatTxid(actual)}`,
        { hint: 'The file is damaged.' },
      );
    }
    this.#fileChecksum = stated;
    this.#ended = true;
    this.#offset += LTX_TRAILER_SIZE;
    return this.#expectNothing();
  }

  #expectNothing(): LtxEvent {
    if (this.#chunkAt < this.#chunk.length) {
      throw new FormatError(
        this.#name,
        `expected the end of the file at byte ${this.#offset}, found more bytes`,
      );
    }
    return 'end';
  }

  #u16(at: number): number {
    const bytes = this.#bytes;
    return (bytes[this.#at + at] << 8) | bytes[this.#at + at + 1];
  }

  #u32(at: number): number {
    return this.#u16(at) * 0x10000 + this.#u16(at + 2);
  }

  #u64(at: number): bigint {
    return (BigInt(this.#u32(at)) << 32n) | BigInt(this.#u32(at + 4));
  }

  #refuse(message: string): never {
    throw new FormatError(`${this.#name}, page ${this.#pgno} (byte ${this.#pageOffset})`, message);
  }
}

export interface LtxVisitor {
  header?(header: LtxHeader): void | Promise<void>;
  /** `page` is the same array every time: copy to keep. */
  page?(pgno: number, page: Uint8Array): void;
}

/**
 * Decodes a whole LTX file: the header, then every page in order, to the visitor; `name` is the file's, for
 * messages. Throws FormatError for anything wrong with the file; pages visited before that are worthless.
 */
export async function decodeLtx(
  name: string,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  visitor: LtxVisitor,
): Promise<LtxSummary> {
  const decoder = new LtxDecoder(name);
  for await (const chunk of source) {
    decoder.push(chunk);
    for (let event = decoder.next(); event !== 'more'; event = decoder.next()) {
      if (event === 'page') visitor.page?.(decoder.pgno, decoder.page);
      else if (event === 'header') await visitor.header?.(decoder.header!);
      else break;
    }
  }
  return decoder.end();
}
