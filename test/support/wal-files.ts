/**
 * WAL, index and journal files made byte for byte, for states that a real SQLite passes through too quickly to be
 * caught in. Independent of what lib/sqlite makes of them.
 */
import { readFileSync, writeFileSync } from 'node:fs';

export const WAL_VERSION = 3007000;

export interface CraftedFrame {
  readonly pgno: number;
  /** Size of the database in pages if the frame commits, else 0. */
  readonly commit: number;
  readonly page: Uint8Array;
}

export interface CraftedWal {
  readonly pageSize: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly sequence?: number;
  readonly version?: number;
  readonly frames: readonly CraftedFrame[];
}

/** Sum of 8-byte steps as WAL and index use it, words little-endian. */
export function sum(
  bytes: Uint8Array,
  from: number,
  length: number,
  start: readonly [number, number] = [0, 0],
) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let [s0, s1] = start;
  for (let at = from; at < from + length; at += 8) {
    s0 = (s0 + view.getUint32(at, true) + s1) >>> 0;
    s1 = (s1 + view.getUint32(at + 4, true) + s0) >>> 0;
  }
  return [s0, s1] as [number, number];
}

/** A whole WAL file, its checksums right. */
export function craftWal(wal: CraftedWal): Buffer {
  const frameSize = 24 + wal.pageSize;
  const bytes = Buffer.alloc(32 + wal.frames.length * frameSize);
  bytes.writeUInt32BE(0x377f0682, 0);
  bytes.writeUInt32BE(wal.version ?? WAL_VERSION, 4);
  bytes.writeUInt32BE(wal.pageSize, 8);
  bytes.writeUInt32BE(wal.sequence ?? 0, 12);
  bytes.writeUInt32BE(wal.salt1, 16);
  bytes.writeUInt32BE(wal.salt2, 20);
  let chain = sum(bytes, 0, 24);
  bytes.writeUInt32BE(chain[0], 24);
  bytes.writeUInt32BE(chain[1], 28);
  for (const [i, { pgno, commit, page }] of wal.frames.entries()) {
    const at = 32 + i * frameSize;
    bytes.writeUInt32BE(pgno, at);
    bytes.writeUInt32BE(commit, at + 4);
    bytes.writeUInt32BE(wal.salt1, at + 8);
    bytes.writeUInt32BE(wal.salt2, at + 12);
    bytes.set(page, at + 24);
    chain = sum(bytes, at + 24, wal.pageSize, sum(bytes, at, 8, chain));
    bytes.writeUInt32BE(chain[0], at + 16);
    bytes.writeUInt32BE(chain[1], at + 20);
  }
  return bytes;
}

/** What a WAL file says of itself; its frames as they lie there, valid or not. */
export function parseWal(bytes: Buffer): CraftedWal & { readonly sequence: number } {
  const pageSize = bytes.readUInt32BE(8);
  const frames: CraftedFrame[] = [];
  for (let at = 32; at + 24 + pageSize <= bytes.length; at += 24 + pageSize) {
    frames.push({
      pgno: bytes.readUInt32BE(at),
      commit: bytes.readUInt32BE(at + 4),
      page: bytes.subarray(at + 24, at + 24 + pageSize),
    });
  }
  return {
    pageSize,
    salt1: bytes.readUInt32BE(16),
    salt2: bytes.readUInt32BE(20),
    sequence: bytes.readUInt32BE(12),
    frames,
  };
}

/** The checksum that frame `frame` (from 1) of a WAL file carries; that of the header for 0. */
export function checksumAt(wal: Buffer, frame: number): [number, number] {
  const at = frame === 0 ? 24 : 32 + (frame - 1) * (24 + wal.readUInt32BE(8)) + 16;
  return [wal.readUInt32BE(at), wal.readUInt32BE(at + 4)];
}

/** The header of a `-shm` file that tests look at and change. */
export interface IndexHeader {
  changeCount: number;
  pageSize: number;
  maxFrame: number;
  pageCount: number;
  checksum: [number, number];
  salt1: number;
  salt2: number;
  backfill: number;
  backfillAttempted: number;
}

export function readIndex(path: string): IndexHeader {
  const bytes = readFileSync(path);
  const size = bytes.readUInt16LE(14);
  return {
    changeCount: bytes.readUInt32LE(8),
    pageSize: (size & 0xfe00) + ((size & 1) << 16),
    maxFrame: bytes.readUInt32LE(16),
    pageCount: bytes.readUInt32LE(20),
    checksum: [bytes.readUInt32LE(24), bytes.readUInt32LE(28)],
    salt1: bytes.readUInt32BE(32),
    salt2: bytes.readUInt32BE(36),
    backfill: bytes.readUInt32LE(96),
    backfillAttempted: bytes.readUInt32LE(128),
  };
}

/** The first 136 bytes of a `-shm`, both copies equal, checksum right. */
export function craftIndex(header: IndexHeader): Buffer {
  const bytes = Buffer.alloc(136);
  bytes.writeUInt32LE(WAL_VERSION, 0);
  bytes.writeUInt32LE(header.changeCount, 8);
  bytes[12] = 1;
  bytes.writeUInt16LE((header.pageSize & 0xfe00) | (header.pageSize >> 16), 14);
  bytes.writeUInt32LE(header.maxFrame, 16);
  bytes.writeUInt32LE(header.pageCount, 20);
  bytes.writeUInt32LE(header.checksum[0], 24);
  bytes.writeUInt32LE(header.checksum[1], 28);
  bytes.writeUInt32BE(header.salt1, 32);
  bytes.writeUInt32BE(header.salt2, 36);
  const check = sum(bytes, 0, 40);
  bytes.writeUInt32LE(check[0], 40);
  bytes.writeUInt32LE(check[1], 44);
  bytes.copy(bytes, 48, 0, 48);
  bytes.writeUInt32LE(header.backfill, 96);
  for (let i = 1; i < 5; i++) bytes.writeUInt32LE(0xffffffff, 100 + 4 * i);
  bytes.writeUInt32LE(header.backfillAttempted, 128);
  return bytes;
}

/** Overwrites the head of a file, on the same inode and at the same length. */
export function overwrite(path: string, bytes: Uint8Array): void {
  writeFileSync(path, bytes, { flag: 'r+' });
}
