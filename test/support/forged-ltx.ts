/**
 * LTX files as a faulty or hostile program could write them: whatever they say, their file checksum holds, so that only
 * the rule which they break can find them out.
 */

import { Crc64 } from '../../lib/ltx/crc64.js';
import { LTX_CHECKSUM_FLAG, LTX_FLAG_NO_CHECKSUM } from '../../lib/ltx/header.js';
import { lz4Bound, lz4Compress } from '../../lib/ltx/lz4.js';

export interface ForgedPage {
  readonly pgno: number;
  readonly page: Uint8Array;
  /** Default 1: an LZ4 block. 0: an LZ4 frame. */
  readonly flags?: number;
  /** What stands there instead of the page as an LZ4 block: other bytes, or a frame. */
  readonly stored?: Uint8Array;
  /** The size that is stated for the block. */
  readonly size?: number;
}

export interface Forgery {
  readonly magic?: string;
  readonly flags?: number;
  readonly pageSize?: number;
  readonly commit?: number;
  readonly minTxid?: bigint;
  readonly maxTxid?: bigint;
  readonly timestampMs?: bigint;
  readonly preApplyChecksum?: bigint;
  readonly walOffset?: bigint;
  readonly walSize?: bigint;
  readonly pages: readonly ForgedPage[];
  /** Page number, offset and size of each page, as they are; returns what the index says. */
  readonly index?: (entries: readonly (readonly number[])[]) => readonly (readonly number[])[];
  readonly indexLength?: bigint;
  readonly postApplyChecksum?: bigint;
}

export function forgeLtx(forgery: Forgery): Buffer {
  const checksum = new Crc64();
  const head = headerOf(forgery);
  checksum.update(head);
  const parts: Uint8Array[] = [head];
  const entries: number[][] = [];
  let offset = head.length;
  for (const forged of forgery.pages) {
    const stored = forged.stored ?? compressed(forged.page);
    const pageHeader = Buffer.alloc(forged.flags === 0 ? 6 : 10);
    pageHeader.writeUInt32BE(forged.pgno);
    pageHeader.writeUInt16BE(forged.flags ?? 1, 4);
    if (forged.flags !== 0) pageHeader.writeUInt32BE(forged.size ?? stored.length, 6);
    parts.push(pageHeader, stored);
    checksum.update(pageHeader);
    checksum.update(forged.page);
    entries.push([forged.pgno, offset, pageHeader.length + stored.length]);
    offset += pageHeader.length + stored.length;
  }
  const numbers = (forgery.index?.(entries) ?? entries).flat();
  const index = Buffer.from([...numbers.flatMap(uvarint), 0]);
  const rest = Buffer.concat([Buffer.alloc(6), index, Buffer.alloc(16)]);
  rest.writeBigUInt64BE(forgery.indexLength ?? BigInt(index.length), rest.length - 16);
  rest.writeBigUInt64BE(forgery.postApplyChecksum ?? 0n, rest.length - 8);
  checksum.update(rest);
  const fileChecksum = Buffer.alloc(8);
  fileChecksum.writeBigUInt64BE(checksum.value() | LTX_CHECKSUM_FLAG);
  return Buffer.concat([...parts, rest, fileChecksum]);
}

function headerOf(forgery: Forgery): Buffer {
  const { pages, minTxid = 1n } = forgery;
  const head = Buffer.alloc(100);
  head.write(forgery.magic ?? 'LTX1');
  head.writeUInt32BE(forgery.flags ?? LTX_FLAG_NO_CHECKSUM, 4);
  head.writeUInt32BE(forgery.pageSize ?? pages[0].page.length, 8);
  head.writeUInt32BE(forgery.commit ?? pages[pages.length - 1].pgno, 12);
  head.writeBigUInt64BE(minTxid, 16);
  head.writeBigUInt64BE(forgery.maxTxid ?? minTxid, 24);
  head.writeBigInt64BE(forgery.timestampMs ?? 1_700_000_000_000n, 32);
  head.writeBigUInt64BE(forgery.preApplyChecksum ?? 0n, 40);
  head.writeBigInt64BE(forgery.walOffset ?? 0n, 48);
  head.writeBigInt64BE(forgery.walSize ?? 0n, 56);
  return head;
}

/** A page as an LZ4 block. */
export function compressed(page: Uint8Array): Uint8Array {
  const out = new Uint8Array(lz4Bound(page.length));
  return out.subarray(0, lz4Compress(page, out, 0));
}

function uvarint(n: number): number[] {
  return n < 0x80 ? [n] : [(n % 0x80) | 0x80, ...uvarint(Math.floor(n / 0x80))];
}
