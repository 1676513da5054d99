/**
 * One LTX file in the spool, with what is needed to put it later or to go on from it.
 *
 * A header of 72 bytes, the LTX file, and the resume point behind it (JSON; empty if there is none). The header, numbers
 * big-endian: magic `JLSPOOL1` · TXID u64 · checksum of the file before it u64 · checksum of this file u64 ·
 * timestamp i64 ms · size of the LTX file u64 · size of the point u32 · commits u32 · pages u32 · zeros u32 ·
 * CRC-64 u64 over the file, the point and the header up to here.
 *
 * The header is written last and nothing is synced in between, so a record is believed only if every length fits and the
 * CRC holds.
 */

import type { FileHandle } from 'node:fs/promises';
import { Crc64 } from '../../ltx/crc64.js';
import { LTX_TRAILER_SIZE } from '../../ltx/header.js';

export interface SpoolEntry {
  readonly txid: bigint;
  /** The checksum in the trailer of the file of the TXID before it. */
  readonly previousChecksum: bigint;
  readonly timestampMs: number;
  readonly commits: number;
  readonly pages: number;
}

/** A record in its segment. */
export interface SpoolRecord extends SpoolEntry {
  /** The checksum in the file's trailer. */
  readonly fileChecksum: bigint;
  /** Of the LTX file, bytes. */
  readonly size: number;
  readonly pointSize: number;
  /** Where the record begins in its segment. */
  readonly offset: number;
}

export const SPOOL_HEADER_SIZE = 72;
const MAGIC = 'JLSPOOL1';
const CRC_AT = 64;
const LARGEST_POINT = 64 * 1024;
const READ_SIZE = 256 * 1024;

export function contentOffset(record: SpoolRecord): number {
  return record.offset + SPOOL_HEADER_SIZE;
}

export function pointOffset(record: SpoolRecord): number {
  return contentOffset(record) + record.size;
}

/** Where the next record begins. */
export function recordEnd(record: SpoolRecord): number {
  return pointOffset(record) + record.pointSize;
}

/** `crc`: of the LTX file and the point; it takes in the header. */
export function encodeRecordHeader(record: SpoolRecord, crc: Crc64): Buffer {
  const header = Buffer.alloc(SPOOL_HEADER_SIZE);
  header.write(MAGIC, 'latin1');
  header.writeBigUInt64BE(record.txid, 8);
  header.writeBigUInt64BE(record.previousChecksum, 16);
  header.writeBigUInt64BE(record.fileChecksum, 24);
  header.writeBigInt64BE(BigInt(record.timestampMs), 32);
  header.writeBigUInt64BE(BigInt(record.size), 40);
  header.writeUInt32BE(record.pointSize, 48);
  header.writeUInt32BE(record.commits, 52);
  header.writeUInt32BE(record.pages, 56);
  crc.update(header, 0, CRC_AT);
  header.writeBigUInt64BE(crc.value(), CRC_AT);
  return header;
}

/** The record whose header stands there, as far as its lengths can be; its content is not looked at. */
export async function readRecordHeader(
  segment: FileHandle,
  offset: number,
  segmentSize: number,
): Promise<SpoolRecord | undefined> {
  const header = Buffer.alloc(SPOOL_HEADER_SIZE);
  if ((await segment.read(header, 0, SPOOL_HEADER_SIZE, offset)).bytesRead < SPOOL_HEADER_SIZE)
    return undefined;
  if (header.toString('latin1', 0, 8) !== MAGIC) return undefined;
  const size = Number(header.readBigUInt64BE(40));
  const pointSize = header.readUInt32BE(48);
  if (size < LTX_TRAILER_SIZE || pointSize > LARGEST_POINT) return undefined;
  const record = {
    txid: header.readBigUInt64BE(8),
    previousChecksum: header.readBigUInt64BE(16),
    fileChecksum: header.readBigUInt64BE(24),
    timestampMs: Number(header.readBigInt64BE(32)),
    size,
    pointSize,
    commits: header.readUInt32BE(52),
    pages: header.readUInt32BE(56),
    offset,
  };
  return record.txid > 0n && recordEnd(record) <= segmentSize ? record : undefined;
}

/** Whether the record's bytes are those that were written. */
export async function isWhole(segment: FileHandle, record: SpoolRecord): Promise<boolean> {
  const crc = new Crc64();
  for await (const bytes of readBytes(segment, contentOffset(record), record.size + record.pointSize)) {
    crc.update(bytes);
  }
  const header = Buffer.alloc(SPOOL_HEADER_SIZE);
  await segment.read(header, 0, SPOOL_HEADER_SIZE, record.offset);
  crc.update(header, 0, CRC_AT);
  return crc.value() === header.readBigUInt64BE(CRC_AT);
}

/** Bytes of a segment; a chunk is the consumer's only until it asks for the next. Fewer, if it ends before. */
export async function* readBytes(
  segment: FileHandle,
  offset: number,
  length: number,
): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(READ_SIZE, length));
  for (let done = 0; done < length; ) {
    const wanted = Math.min(buffer.length, length - done);
    const { bytesRead } = await segment.read(buffer, 0, wanted, offset + done);
    if (bytesRead === 0) return;
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}
