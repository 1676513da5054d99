/**
 * The write-ahead log written: the mirror of wal.ts, whose invariants it keeps by construction.
 *
 * A frame is made where it will be written from: the page is put behind room for its header, then `seal` fills the header
 * in and carries the checksum chain on. Nothing is allocated.
 */

import { isPageSize } from './database.js';
import { FRAME_HEADER_SIZE, WAL_HEADER_SIZE, WAL_MAGIC, WAL_VERSION, WalChecksum } from './wal.js';

/** What a WAL header is made of; its checksum follows from it. */
export interface WalHeaderFields {
  readonly bigEndianChecksum: boolean;
  /** Bytes a page. */
  readonly pageSize: number;
  readonly checkpointSequence: number;
  readonly salt1: number;
  readonly salt2: number;
}

/** Writes a header into the first 32 of `into`; the checksum chain as it begins behind it. Throws RangeError. */
export function encodeWalHeader(fields: WalHeaderFields, into: Uint8Array): WalChecksum {
  const { bigEndianChecksum, pageSize, checkpointSequence, salt1, salt2 } = fields;
  if (!isPageSize(pageSize)) throw new RangeError(`${pageSize} bytes are no page size`);
  const view = new DataView(into.buffer, into.byteOffset, WAL_HEADER_SIZE);
  view.setUint32(0, WAL_MAGIC | (bigEndianChecksum ? 1 : 0));
  view.setUint32(4, WAL_VERSION);
  view.setUint32(8, pageSize);
  view.setUint32(12, checkpointSequence);
  view.setUint32(16, salt1);
  view.setUint32(20, salt2);
  const checksum = new WalChecksum(bigEndianChecksum);
  checksum.update(into, 0, 24);
  view.setUint32(24, checksum.s1);
  view.setUint32(28, checksum.s2);
  return checksum;
}

/** Makes the frames of one generation, one after the other. */
export class FrameEncoder {
  readonly frameSize: number;
  readonly checksum: WalChecksum;
  readonly #pageSize: number;
  readonly #salt1: number;
  readonly #salt2: number;

  /** `checksum` is the chain before the next frame: of the WAL header, or of the frame before. */
  constructor(pageSize: number, salt1: number, salt2: number, checksum: WalChecksum) {
    this.frameSize = FRAME_HEADER_SIZE + pageSize;
    this.checksum = checksum;
    this.#pageSize = pageSize;
    this.#salt1 = salt1;
    this.#salt2 = salt2;
  }

  /**
   * Makes the frame at `offset` the next one; its page stands at `offset` + 24 already.
   * @param commit size of the database in pages if this frame ends a commit, else 0
   */
  seal(bytes: Uint8Array, offset: number, pgno: number, commit: number): void {
    putUint32(bytes, offset, pgno);
    putUint32(bytes, offset + 4, commit);
    putUint32(bytes, offset + 8, this.#salt1);
    putUint32(bytes, offset + 12, this.#salt2);
    const { checksum } = this;
    checksum.update(bytes, offset, 8);
    checksum.update(bytes, offset + FRAME_HEADER_SIZE, this.#pageSize);
    putUint32(bytes, offset + 16, checksum.s1);
    putUint32(bytes, offset + 20, checksum.s2);
  }
}

function putUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
