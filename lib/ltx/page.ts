/**
 * One page in an LTX file: its number u32, flags u16, and either (flag bit 0 set) the size of an LZ4 block u32
 * and that block, or (no flag, older files) an LZ4 frame. A page header of zeros ends the pages.
 */

import { FormatError } from '../errors.js';
import { lz4Bound, lz4Decompress } from './lz4.js';
import { Lz4FrameReader } from './lz4-frame.js';

export const LTX_PAGE_HEADER_SIZE = 6;
/** A page header with the size of an LZ4 block behind it. */
export const LTX_BLOCK_HEADER_SIZE = 10;
/** Page flag: a size follows, and the page is one LZ4 block. */
export const LTX_PAGE_FLAG_BLOCK = 1;

/** What is wrong with the size of a block, as words for a message; undefined if it can hold a page. */
export function blockSizeFault(size: number, pageSize: number): string | undefined {
  const limit = lz4Bound(pageSize);
  if (size > 0 && size <= limit) return undefined;
  return `expected an LZ4 block of 1 to ${limit} bytes, found ${size}`;
}

/**
 * Fills `page` from the LZ4 block `bytes[from..to)`. Returns what is wrong with the block, undefined if nothing
 * is.
 */
export function decodeBlock(
  bytes: Uint8Array,
  from: number,
  to: number,
  page: Uint8Array,
): string | undefined {
  const end = lz4Decompress(bytes, from, to, page);
  if (end === page.length) return undefined;
  if (end < 0) return `expected an LZ4 block of ${page.length} bytes, found it malformed at its byte ${~end}`;
  return `expected ${page.length} bytes in the LZ4 block, found ${end}`;
}

/**
 * Decodes one page into `page` (as long as the file's pages are) from `bytes`: what the page index says of page
 * `pgno`, header and all. Throws FormatError, which names `where`, if they are not that page. No checksum of
 * LTX covers a page by itself, so that a damaged one may pass; only decoding the whole file proves it.
 */
export function decodePage(bytes: Uint8Array, pgno: number, page: Uint8Array, where: string): void {
  const refuse = (fault: string): never => {
    throw new FormatError(`${where}, page ${pgno}`, fault);
  };
  if (bytes.length < LTX_BLOCK_HEADER_SIZE) refuse(`expected a page, found ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0) !== pgno)
    refuse(`expected this page at its place in the index, found page ${view.getUint32(0)}`);
  const flags = view.getUint16(4);
  if (flags === LTX_PAGE_FLAG_BLOCK) {
    const size = view.getUint32(6);
    const found = bytes.length - LTX_BLOCK_HEADER_SIZE;
    if (size !== found) refuse(`expected an LZ4 block of ${size} bytes, found ${found}`);
    const fault =
      blockSizeFault(size, page.length) ?? decodeBlock(bytes, LTX_BLOCK_HEADER_SIZE, bytes.length, page);
    if (fault !== undefined) refuse(fault);
  } else if (flags === 0) {
    const frame = new Lz4FrameReader(page);
    let at = LTX_PAGE_HEADER_SIZE;
    for (let done: boolean | string = false; done !== true; ) {
      const need = frame.need;
      if (need > bytes.length - at)
        refuse(`expected an LZ4 frame, found its end after ${bytes.length - at} bytes`);
      done = frame.feed(bytes, at);
      if (typeof done === 'string') refuse(done);
      at += need;
    }
    if (at !== bytes.length)
      refuse(
        `expected an LZ4 frame of ${bytes.length - LTX_PAGE_HEADER_SIZE} bytes, found one of ${at - LTX_PAGE_HEADER_SIZE}`,
      );
  } else {
    refuse(`expected page flags 0 or ${LTX_PAGE_FLAG_BLOCK}, found ${flags}`);
  }
}
