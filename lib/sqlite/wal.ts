/**
 * The write-ahead log: a 32-byte header, then frames of a 24-byte header and one page each
 * (https://www.sqlite.org/fileformat2.html#walformat). All numbers are big-endian; only the checksum reads its
 * input as the header's magic says.
 *
 * Invariants the rest of the product rests on:
 * 1. A frame is valid only if its salts are the WAL header's, its page number is not 0 and its checksum continues
 *    the chain that began with the WAL header. A valid frame makes every frame before it valid.
 * 2. A frame with `commit` 0 counts only once a later valid frame has a `commit` that is not 0.
 * 3. The first frame that is not valid ends the WAL. What lies beyond is left from an earlier generation or from a
 *    transaction that was rolled back or is still being written.
 * 4. One exception, seen with SQLite up to 3.50.1 where a savepoint is rolled back after pages have spilled: committed
 *    frames without salts and checksum, and after them a chain that begins anew. Readers that follow a live WAL index
 *    see these commits; recovery ends before them, and so does everything here.
 */

import { FormatError } from '../errors.js';
import { isPageSize } from './database.js';

export const WAL_HEADER_SIZE = 32;
export const FRAME_HEADER_SIZE = 24;
export const WAL_VERSION = 3007000;

/** Checksums read words little-endian; with the lowest bit set, big-endian. */
export const WAL_MAGIC = 0x377f0682;
const WHERE = 'the WAL header';

export interface WalHeader {
  readonly bigEndianChecksum: boolean;
  /** Bytes a page. */
  readonly pageSize: number;
  /** How often the WAL was restarted. */
  readonly checkpointSequence: number;
  readonly salt1: number;
  readonly salt2: number;
  /** Where the checksum chain of the frames begins. */
  readonly checksum1: number;
  readonly checksum2: number;
}

export interface FrameHeader {
  readonly pgno: number;
  /** Database size in pages if this frame ends a commit, else 0. */
  readonly commit: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly checksum1: number;
  readonly checksum2: number;
}

/**
 * The cumulative checksum of WAL and WAL index: over pairs of 32-bit words, `s1 += x + s2; s2 += y + s1`, modulo 2³².
 *
 * Reads any alignment at the same speed and allocates only when it is given another ArrayBuffer than the last time:
 * the last one stays referenced, so feed one buffer again and again.
 */
export class WalChecksum {
  readonly bigEndian: boolean;
  // Integers of 32 bits from the first on: declared without a value they would start as undefined, and V8 would add
  // them up at a third of the speed.
  #s1 = 0;
  #s2 = 0;
  #view: DataView = new DataView(new ArrayBuffer(0));

  constructor(bigEndian: boolean, s1 = 0, s2 = 0) {
    this.bigEndian = bigEndian;
    this.#s1 = s1 | 0;
    this.#s2 = s2 | 0;
  }

  /** Unsigned. */
  get s1(): number {
    return this.#s1 >>> 0;
  }

  set s1(value: number) {
    this.#s1 = value | 0;
  }

  /** Unsigned. */
  get s2(): number {
    return this.#s2 >>> 0;
  }

  set s2(value: number) {
    this.#s2 = value | 0;
  }

  /** Adds `length` bytes (a multiple of 8) of `bytes` from `offset` on. Throws RangeError beyond its ends. */
  update(bytes: Uint8Array, offset: number, length: number): void {
    if (offset < 0 || length < 0 || (length & 7) !== 0 || offset + length > bytes.length) {
      throw new RangeError(
        `WAL checksum: no multiple of 8 inside ${bytes.length} bytes: ${length} from ${offset}`,
      );
    }
    if (this.#view.buffer !== bytes.buffer) this.#view = new DataView(bytes.buffer);
    const start = bytes.byteOffset + offset;
    // Two loops: the byte order must be a constant for the compiler to make each read one instruction.
    if (this.bigEndian) this.#addBigEndian(start, start + length);
    else this.#addLittleEndian(start, start + length);
  }

  #addLittleEndian(start: number, end: number): void {
    const view = this.#view;
    let s1 = this.#s1;
    let s2 = this.#s2;
    for (let at = start; at < end; at += 8) {
      s1 = (s1 + view.getInt32(at, true) + s2) | 0;
      s2 = (s2 + view.getInt32(at + 4, true) + s1) | 0;
    }
    this.#s1 = s1;
    this.#s2 = s2;
  }

  #addBigEndian(start: number, end: number): void {
    const view = this.#view;
    let s1 = this.#s1;
    let s2 = this.#s2;
    for (let at = start; at < end; at += 8) {
      s1 = (s1 + view.getInt32(at, false) + s2) | 0;
      s2 = (s2 + view.getInt32(at + 4, false) + s1) | 0;
    }
    this.#s1 = s1;
    this.#s2 = s2;
  }

  clone(): WalChecksum {
    return new WalChecksum(this.bigEndian, this.#s1, this.#s2);
  }
}

/** A WAL header that is sound in itself: recovery passes over any other that it cannot use, but refuses this one. */
export class WalVersionError extends FormatError {
  constructor(version: number) {
    super(WHERE, `expected version ${WAL_VERSION}, found ${version}`);
    this.name = 'WalVersionError';
  }
}

/**
 * Decodes the header at the start of `bytes` (32 bytes or more), refusing what SQLite does not replay.
 * @throws FormatError; WalVersionError if nothing but the version is unknown
 */
export function decodeWalHeader(bytes: Uint8Array): WalHeader {
  if (bytes.length < WAL_HEADER_SIZE) {
    throw new FormatError(WHERE, `expected ${WAL_HEADER_SIZE} bytes, found ${bytes.length}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, WAL_HEADER_SIZE);
  const magic = view.getUint32(0);
  if ((magic & ~1) !== WAL_MAGIC) {
    throw new FormatError(WHERE, `expected magic 377f0682 or 377f0683, found ${magic.toString(16)}`);
  }
  const bigEndianChecksum = (magic & 1) === 1;
  const pageSize = view.getUint32(8);
  if (!isPageSize(pageSize)) {
    throw new FormatError(
      WHERE,
      `expected a page size of 512 to 65536 bytes, a power of two, found ${pageSize}`,
    );
  }
  const checksum = new WalChecksum(bigEndianChecksum);
  checksum.update(bytes, 0, 24);
  const checksum1 = view.getUint32(24);
  const checksum2 = view.getUint32(28);
  if (checksum.s1 !== checksum1 || checksum.s2 !== checksum2) {
    throw new FormatError(
      WHERE,
      `expected checksum ${hex(checksum.s1, checksum.s2)}, found ${hex(checksum1, checksum2)}`,
    );
  }
  const version = view.getUint32(4);
  if (version !== WAL_VERSION) throw new WalVersionError(version);
  return {
    bigEndianChecksum,
    pageSize,
    checkpointSequence: view.getUint32(12),
    salt1: view.getUint32(16),
    salt2: view.getUint32(20),
    checksum1,
    checksum2,
  };
}

/** Decodes the 24-byte frame header at `offset`. It proves nothing: see FrameScanner. Throws RangeError beyond the end. */
export function decodeFrameHeader(bytes: Uint8Array, offset: number): FrameHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    pgno: view.getUint32(offset),
    commit: view.getUint32(offset + 4),
    salt1: view.getUint32(offset + 8),
    salt2: view.getUint32(offset + 12),
    checksum1: view.getUint32(offset + 16),
    checksum2: view.getUint32(offset + 20),
  };
}

/** Whether SQLite wrote this frame without salts and checksum: see invariant 4. */
export function isUnsummedFrame({ pgno, salt1, salt2, checksum1, checksum2 }: FrameHeader): boolean {
  return pgno !== 0 && salt1 === 0 && salt2 === 0 && checksum1 === 0 && checksum2 === 0;
}

/**
 * Walks the frames of one generation. Allocates nothing a frame as long as the frames come in one ArrayBuffer.
 *
 * The chain is the caller's `checksum`: begin with the WAL header's two checksums before frame 1, or go on with
 * those of any frame known to be valid.
 */
export class FrameScanner {
  /** Of the last frame that was valid. */
  pgno = 0;
  /** Of the last frame that was valid: database size in pages if it ends a commit, else 0. */
  commit = 0;
  readonly frameSize: number;
  readonly checksum: WalChecksum;
  readonly #pageSize: number;
  readonly #salt1: number;
  readonly #salt2: number;

  constructor(pageSize: number, salt1: number, salt2: number, checksum: WalChecksum) {
    this.frameSize = FRAME_HEADER_SIZE + pageSize;
    this.checksum = checksum;
    this.#pageSize = pageSize;
    this.#salt1 = salt1 | 0;
    this.#salt2 = salt2 | 0;
  }

  /**
   * Whether the whole frame at `offset` is the next valid one. True: the chain has moved on and `pgno` and `commit`
   * are its. False: nothing has changed. Throws RangeError if `bytes` end inside the frame.
   */
  next(bytes: Uint8Array, offset: number): boolean {
    if (offset < 0 || offset + this.frameSize > bytes.length) {
      throw new RangeError(
        `WAL frame: ${this.frameSize} bytes from ${offset} are not inside ${bytes.length}`,
      );
    }
    if (int32At(bytes, offset + 8) !== this.#salt1 || int32At(bytes, offset + 12) !== this.#salt2)
      return false;
    const pgno = int32At(bytes, offset) >>> 0;
    if (pgno === 0) return false;
    const { checksum } = this;
    const { s1, s2 } = checksum;
    checksum.update(bytes, offset, 8);
    checksum.update(bytes, offset + FRAME_HEADER_SIZE, this.#pageSize);
    if (
      (checksum.s1 | 0) !== int32At(bytes, offset + 16) ||
      (checksum.s2 | 0) !== int32At(bytes, offset + 20)
    ) {
      checksum.s1 = s1;
      checksum.s2 = s2;
      return false;
    }
    this.pgno = pgno;
    this.commit = int32At(bytes, offset + 4) >>> 0;
    return true;
  }
}

function int32At(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}

function hex(first: number, second: number): string {
  return `${first.toString(16).padStart(8, '0')} ${second.toString(16).padStart(8, '0')}`;
}
