/**
 * LZ4 frames with every option of the format, and LTX files that hold their pages so, as programs before 2026
 * wrote them.
 */

import { Crc64 } from '../../lib/ltx/crc64.js';
import { encodeLtxHeader, LTX_CHECKSUM_FLAG, type LtxHeader } from '../../lib/ltx/header.js';
import { lz4Bound, lz4Compress } from '../../lib/ltx/lz4.js';
import { PageIndexBuilder } from '../../lib/ltx/page-index.js';
import { xxHash32 } from '../../lib/ltx/xxhash32.js';
import type { Pages } from './pages.js';

export interface FrameOptions {
  /** Bytes of content a block. */
  readonly blockSize?: number;
  readonly compressed?: boolean;
  readonly blockChecksum?: boolean;
  readonly contentSize?: boolean;
  readonly contentChecksum?: boolean;
}

export function lz4Frame(content: Uint8Array, options: FrameOptions = {}): Buffer {
  const { blockSize = content.length, compressed = true, blockChecksum = false } = options;
  const { contentSize = false, contentChecksum = true } = options;
  const flags = 0x60 | (blockChecksum ? 0x10 : 0) | (contentSize ? 8 : 0) | (contentChecksum ? 4 : 0);
  const size = Buffer.alloc(contentSize ? 8 : 0);
  if (contentSize) size.writeBigUInt64LE(BigInt(content.length));
  const descriptor = Buffer.concat([Buffer.of(flags, 0x40), size]);
  const parts = [u32(0x184d2204), descriptor, Buffer.of((xxHash32(descriptor) >>> 8) & 0xff)];
  for (let at = 0; at < content.length; at += blockSize) {
    const plain = content.subarray(at, at + blockSize);
    const out = new Uint8Array(lz4Bound(plain.length));
    const packed = out.subarray(0, lz4Compress(plain, out, 0));
    // No block of a frame is larger than its content.
    const block = compressed && packed.length < plain.length ? packed : plain;
    parts.push(u32(block === packed ? block.length : block.length + 0x80000000), Buffer.from(block));
    if (blockChecksum) parts.push(u32(xxHash32(block)));
  }
  parts.push(u32(0));
  if (contentChecksum) parts.push(u32(xxHash32(content)));
  return Buffer.concat(parts);
}

function u32(n: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(n);
  return bytes;
}

/** An LTX file whose pages are the frames that `frameOf` makes. */
export function frameFile(
  header: LtxHeader,
  pages: Pages,
  frameOf: (page: Uint8Array) => Uint8Array,
  postApplyChecksum = 0n,
): Buffer {
  const checksum = new Crc64();
  const index = new PageIndexBuilder();
  const head = encodeLtxHeader(header);
  checksum.update(head);
  const parts: Uint8Array[] = [head];
  let offset = head.length;
  for (const [pgno, page] of pages) {
    const pageHeader = Buffer.alloc(6);
    pageHeader.writeUInt32BE(pgno);
    const frame = frameOf(page);
    parts.push(pageHeader, frame);
    checksum.update(pageHeader);
    checksum.update(page);
    index.add(pgno, offset, pageHeader.length + frame.length);
    offset += pageHeader.length + frame.length;
  }
  const rest = Buffer.concat([Buffer.alloc(6), index.finish(), Buffer.alloc(8)]);
  rest.writeBigUInt64BE(postApplyChecksum, rest.length - 8);
  checksum.update(rest);
  const fileChecksum = Buffer.alloc(8);
  fileChecksum.writeBigUInt64BE(checksum.value() | LTX_CHECKSUM_FLAG);
  return Buffer.concat([...parts, rest, fileChecksum]);
}
