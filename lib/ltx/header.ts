/**
 * The header of an LTX file, format version 3, and the names of LTX files.
 *
 * One LTX file holds the pages of one range of transactions. 100 bytes, big-endian: "LTX1" · flags u32 · page
 * size u32 · commit u32 @12 · min TXID u64 @16 · max TXID u64 @24 · timestamp i64 @32 · pre-apply checksum u64
 * @40 · WAL offset i64 @48 · WAL size i64 @56 · WAL salts 2×u32 @64 · node id u64 @72 · reserved to 100.
 */

import { FormatError } from '../errors.js';
import { isPageSize } from '../sqlite/database.js';

export const LTX_HEADER_SIZE = 100;
export const LTX_TRAILER_SIZE = 16;
/** No file is smaller. */
export const LTX_LEAST_SIZE = LTX_HEADER_SIZE + LTX_TRAILER_SIZE;

/** Flag: the file carries no checksums of the database; both checksum fields are then 0. */
export const LTX_FLAG_NO_CHECKSUM = 2;

const MAGIC = 0x4c545831;
/** The top bit of every checksum that is present, so that none is 0. */
export const LTX_CHECKSUM_FLAG = 1n << 63n;
const MAX_TIMESTAMP_MS = 8.64e15;
const U64_LIMIT = 1n << 64n;

export interface LtxHeader {
  readonly flags: number;
  /** Bytes, a power of two from 512 to 65536. */
  readonly pageSize: number;
  /** Size of the database after the last transaction of the file, in pages; at least 1. */
  readonly commit: number;
  /** The first transaction of the file; 1 makes it a snapshot, which has every page of the database. */
  readonly minTxid: bigint;
  readonly maxTxid: bigint;
  /** When the last transaction was captured, milliseconds since the epoch. */
  readonly timestampMs: number;
  /** Rolling checksum of the database before, or 0. */
  readonly preApplyChecksum: bigint;
  /** Where the transactions began in their WAL, bytes, or 0. */
  readonly walOffset: number;
  /** Bytes of WAL they came from, or 0. */
  readonly walSize: number;
  readonly walSalt1: number;
  readonly walSalt2: number;
  readonly nodeId: bigint;
}

/** Snapshots have every page of the database, so each can be restored without another file. */
export function isSnapshot(header: LtxHeader): boolean {
  return header.minTxid === 1n;
}

/** The 100 bytes of a header. Throws FormatError if it breaks a rule of the format. */
export function encodeLtxHeader(header: LtxHeader): Uint8Array {
  checkHeader(header, 'LTX header');
  const bytes = new Uint8Array(LTX_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.flags);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.commit);
  view.setBigUint64(16, header.minTxid);
  view.setBigUint64(24, header.maxTxid);
  view.setBigInt64(32, BigInt(header.timestampMs));
  view.setBigUint64(40, header.preApplyChecksum);
  view.setBigInt64(48, BigInt(header.walOffset));
  view.setBigInt64(56, BigInt(header.walSize));
  view.setUint32(64, header.walSalt1);
  view.setUint32(68, header.walSalt2);
  view.setBigUint64(72, header.nodeId);
  return bytes;
}

/**
 * Decodes a header from the first 100 bytes of `bytes`. Throws FormatError, which names `where`, if they are
 * not a header that keeps the rules of the format. The reserved bytes are not looked at.
 */
export function decodeLtxHeader(bytes: Uint8Array, where = 'LTX header'): LtxHeader {
  if (bytes.length < LTX_HEADER_SIZE) {
    throw new FormatError(where, `expected ${LTX_HEADER_SIZE} bytes, found ${bytes.length}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, LTX_HEADER_SIZE);
  if (view.getUint32(0) !== MAGIC) {
    throw new FormatError(
      where,
      `expected the magic number of an LTX file, found ${hex(view.getUint32(0))}`,
      {
        hint: 'This is no LTX file, or its beginning is damaged.',
      },
    );
  }
  const header: LtxHeader = {
    flags: view.getUint32(4),
    pageSize: view.getUint32(8),
    commit: view.getUint32(12),
    minTxid: view.getBigUint64(16),
    maxTxid: view.getBigUint64(24),
    timestampMs: Number(view.getBigInt64(32)),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: Number(view.getBigInt64(48)),
    walSize: Number(view.getBigInt64(56)),
    walSalt1: view.getUint32(64),
    walSalt2: view.getUint32(68),
    nodeId: view.getBigUint64(72),
  };
  checkHeader(header, where);
  return header;
}

function checkHeader(header: LtxHeader, where: string): void {
  const refuse = (expected: string, found: string | number | bigint): never => {
    throw new FormatError(where, `expected ${expected}, found ${found}`);
  };
  const { flags, pageSize, commit, minTxid, maxTxid, timestampMs, preApplyChecksum, walOffset, walSize } =
    header;
  if (flags !== 0 && flags !== LTX_FLAG_NO_CHECKSUM) refuse('flags 0 or 2', hex(flags));
  if (!isPageSize(pageSize)) {
    refuse('a page size that is a power of two from 512 to 65536', pageSize);
  }
  if (!isU32(commit) || commit === 0) refuse('a database of at least one page', commit);
  for (const txid of [minTxid, maxTxid]) {
    if (txid <= 0n || txid >= U64_LIMIT) refuse('TXIDs from 1 to 2^64-1', txid);
  }
  if (minTxid > maxTxid) refuse(`a max TXID of at least ${formatTxid(minTxid)}`, formatTxid(maxTxid));
  if (!isCount(timestampMs) || timestampMs > MAX_TIMESTAMP_MS)
    refuse('a timestamp in milliseconds', timestampMs);
  if (!isCount(walOffset)) refuse('a WAL offset', walOffset);
  if (!isCount(walSize)) refuse('a WAL size', walSize);
  if (!isU32(header.walSalt1) || !isU32(header.walSalt2)) refuse('WAL salts of 32 bits', 'larger ones');
  if (header.nodeId < 0n || header.nodeId >= U64_LIMIT) refuse('a node id of 64 bits', header.nodeId);
  if (walOffset === 0 && (walSize !== 0 || header.walSalt1 !== 0 || header.walSalt2 !== 0)) {
    refuse('a WAL offset beside the WAL size and salts', 'none');
  }
  if (isSnapshot(header) || flags === LTX_FLAG_NO_CHECKSUM) {
    if (preApplyChecksum !== 0n) refuse('no pre-apply checksum', hex(preApplyChecksum));
  } else if (preApplyChecksum < LTX_CHECKSUM_FLAG || preApplyChecksum >= U64_LIMIT) {
    refuse('a pre-apply checksum with its top bit set', hex(preApplyChecksum));
  }
}

function isU32(n: number): boolean {
  return Number.isInteger(n) && n >= 0 && n <= 0xffffffff;
}

function isCount(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0;
}

function hex(n: number | bigint): string {
  return `0x${n.toString(16)}`;
}

/** 16 hex digits. */
export function formatTxid(txid: bigint): string {
  return txid.toString(16).padStart(16, '0');
}

/** The TXID that 16 lower-case hex digits say, else undefined. */
export function parseTxid(text: string): bigint | undefined {
  return /^[0-9a-f]{16}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}

/** `<min>-<max>.ltx`, each 16 hex digits. */
export function ltxFileName(minTxid: bigint, maxTxid: bigint): string {
  return `${formatTxid(minTxid)}-${formatTxid(maxTxid)}.ltx`;
}

/**
 * What a file name of the form `<min>-<max>.ltx` says; undefined for any other name and for an impossible
 * range.
 */
export function parseLtxFileName(name: string): { minTxid: bigint; maxTxid: bigint } | undefined {
  if (!/^[0-9a-f]{16}-[0-9a-f]{16}\.ltx$/.test(name)) return undefined;
  const min = name.slice(0, 16);
  const max = name.slice(17, 33);
  const minTxid = BigInt(`0x${min}`);
  const maxTxid = max === min ? minTxid : BigInt(`0x${max}`);
  return minTxid > 0n && minTxid <= maxTxid ? { minTxid, maxTxid } : undefined;
}
