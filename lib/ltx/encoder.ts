/**
 * Writes an LTX file: header, pages as LZ4 blocks, page index, trailer.
 *
 * The trailer is the post-apply checksum of the database (0: not kept), and the file checksum. That covers
 * everything before it, with the pages as they were *before* compression, and has its top bit set.
 *
 * Memory: one output block, the blocks not yet taken, and the page index. Blocks that are given back are filled again: a file
 * of a gigabyte leaves the collector nothing to do.
 */

import { FormatError } from '../errors.js';
import { Crc64 } from './crc64.js';
import {
  encodeLtxHeader,
  LTX_CHECKSUM_FLAG,
  LTX_FLAG_NO_CHECKSUM,
  LTX_TRAILER_SIZE,
  type LtxHeader,
  ltxFileName,
} from './header.js';
import { lz4Bound, lz4Compress } from './lz4.js';
import { LTX_BLOCK_HEADER_SIZE, LTX_PAGE_FLAG_BLOCK, LTX_PAGE_HEADER_SIZE } from './page.js';
import { PageIndexBuilder } from './page-index.js';
import { PageOrder } from './page-order.js';

export { LTX_TRAILER_SIZE };

/** Sees each page that goes into a file, by the CRC-64 remainder of its `pageSize` bytes; valid during the call. */
export type OnEncodedPage = (pgno: number, remainder: Crc64, pageSize: number) => void;

const OUTPUT_BLOCK_SIZE = 256 * 1024;

export class LtxEncoder {
  readonly #header: LtxHeader;
  readonly #name: string;
  readonly #onPage: OnEncodedPage | undefined;
  readonly #order: PageOrder;
  readonly #index = new PageIndexBuilder();
  readonly #checksum = new Crc64();
  readonly #remainder = new Crc64(0);
  readonly #full: Uint8Array[] = [];
  readonly #spare: ArrayBufferLike[] = [];
  #block: Uint8Array;
  #view: DataView;
  /** Bytes of #block that are filled. */
  #at: number;
  /** Bytes of the file in the blocks before #block. */
  #before = 0;
  #pageCount = 0;
  #finished = false;

  /**
   * Throws FormatError if the header breaks a rule of the format; only files without database checksums are
   * written.
   */
  constructor(header: LtxHeader, onPage?: OnEncodedPage) {
    const bytes = encodeLtxHeader(header);
    this.#name = ltxFileName(header.minTxid, header.maxTxid);
    if (header.flags !== LTX_FLAG_NO_CHECKSUM) {
      throw new FormatError(
        this.#name,
        `expected flags ${LTX_FLAG_NO_CHECKSUM} (no checksum), found ${header.flags}`,
      );
    }
    this.#header = header;
    this.#onPage = onPage;
    this.#order = new PageOrder(header, this.#name);
    this.#block = new Uint8Array(OUTPUT_BLOCK_SIZE);
    this.#view = new DataView(this.#block.buffer);
    this.#block.set(bytes);
    this.#checksum.update(bytes);
    this.#at = bytes.length;
  }

  /** Pages written so far. */
  get pageCount(): number {
    return this.#pageCount;
  }

  /** Size of the file so far, in bytes, whether taken or not. */
  get bytesOut(): number {
    return this.#before + this.#at;
  }

  /**
   * Compresses one page into the file. The bytes are not needed afterwards. Throws FormatError, and leaves the
   * file as it was, if the page may not stand here: out of order, beyond the commit, the lock page, of another
   * size, or a snapshot with a hole.
   */
  writePage(pgno: number, page: Uint8Array): void {
    this.#assertOpen();
    if (page.length !== this.#header.pageSize) {
      throw new FormatError(
        `${this.#name}, page ${pgno}`,
        `expected ${this.#header.pageSize} bytes, found ${page.length}`,
      );
    }
    this.#order.take(pgno);
    this.#reserve(LTX_BLOCK_HEADER_SIZE + lz4Bound(page.length));
    const size = lz4Compress(page, this.#block, this.#at + LTX_BLOCK_HEADER_SIZE);
    this.#remainder.reset();
    this.#remainder.update(page);
    this.#endPage(pgno, size, this.#remainder);
  }

  /**
   * Like writePage, for a page that is compressed already: its LZ4 block `block[from..to)` goes into the file
   * as it is. `remainder` is the CRC-64 remainder of the page before compression; both must be right.
   */
  writeCompressedPage(pgno: number, remainder: Crc64, block: Uint8Array, from: number, to: number): void {
    this.#assertOpen();
    this.#order.take(pgno);
    this.#reserve(LTX_BLOCK_HEADER_SIZE + to - from);
    this.#block.set(block.subarray(from, to), this.#at + LTX_BLOCK_HEADER_SIZE);
    this.#endPage(pgno, to - from, remainder);
  }

  /** The next filled block of the file, the caller's to keep; undefined if none is full. */
  take(): Uint8Array | undefined {
    return this.#full.shift();
  }

  /** Takes back a block that take() returned and nobody needs any more; its bytes will change. */
  giveBack(block: Uint8Array): void {
    this.#spare.push(block.buffer);
  }

  /**
   * Ends the file and returns what was not yet taken of it, with the page index and the trailer. Nothing may be
   * called afterwards but the two counts. Throws FormatError if a snapshot lacks pages.
   */
  finish(): Uint8Array {
    this.#assertOpen();
    this.#order.finish();
    this.#finished = true;

    const index = this.#index.finish();
    const rest = new Uint8Array(LTX_PAGE_HEADER_SIZE + index.length + LTX_TRAILER_SIZE);
    rest.set(index, LTX_PAGE_HEADER_SIZE);
    const checksumAt = rest.length - 8;
    this.#checksum.update(rest, 0, checksumAt);
    new DataView(rest.buffer).setBigUint64(checksumAt, this.#checksum.value() | LTX_CHECKSUM_FLAG);

    const parts = [...this.#full.splice(0), this.#block.subarray(0, this.#at), rest];
    this.#before += this.#at + rest.length;
    this.#at = 0;
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /** Writes the page header before the `size` bytes of LZ4 that stand behind it in the block already. */
  #endPage(pgno: number, size: number, remainder: Crc64): void {
    const at = this.#at;
    this.#view.setUint32(at, pgno);
    this.#view.setUint16(at + 4, LTX_PAGE_FLAG_BLOCK);
    this.#view.setUint32(at + 6, size);
    this.#checksum.update(this.#block, at, LTX_BLOCK_HEADER_SIZE);
    this.#checksum.append(remainder, this.#header.pageSize);
    this.#index.add(pgno, this.#before + at, LTX_BLOCK_HEADER_SIZE + size);
    this.#at = at + LTX_BLOCK_HEADER_SIZE + size;
    this.#pageCount++;
    this.#onPage?.(pgno, remainder, this.#header.pageSize);
  }

  /** Makes room for `size` bytes in one block. */
  #reserve(size: number): void {
    if (this.#at + size <= this.#block.length) return;
    this.#full.push(this.#block.subarray(0, this.#at));
    this.#before += this.#at;
    this.#block = new Uint8Array(this.#spare.pop() ?? new ArrayBuffer(OUTPUT_BLOCK_SIZE));
    this.#view = new DataView(this.#block.buffer);
    this.#at = 0;
  }

  #assertOpen(): void {
    if (this.#finished) throw new TypeError('this LTX encoder has finished');
  }
}
