/**
 * The head of a `-shm` file: where the WAL's last commit ends and what has been checkpointed. Numbers are in the byte
 * order of the machine that wrote it (https://www.sqlite.org/walformat.html#the_wal_index_header).
 *
 * Invariants:
 * 1. A writer publishes a commit by writing the second copy of the 48-byte header, then the first, after the frames
 *    are in the WAL. So a header governs only if both copies are equal and their checksum is right.
 * 2. The backfill counts and the read marks lie outside both copies and can be newer than the header read with them.
 * 3. With `maxFrame` 0 page size, size in pages and frame checksum say nothing about the WAL: recovery of a WAL without
 *    a commit publishes zeros, a restart leaves what the generation before had, and the salts can be those of a WAL
 *    header that is not written yet.
 */

import { WAL_VERSION, WalChecksum } from './wal.js';

/** The bytes needed: two copies, checkpoint information, lock bytes. */
export const WAL_INDEX_HEADER_SIZE = 136;

const COPY_SIZE = 48;
const READ_MARKS = 5;

export interface WalIndexHeader {
  /** `iChange`: one more for each commit; 0 after recovery. */
  readonly changeCount: number;
  /** Bytes a page; 0 if recovery found no commit. Checked only by its checksum: compare it with the WAL's. */
  readonly pageSize: number;
  /** Frames that are committed; 0 if the WAL holds none. */
  readonly maxFrame: number;
  /** Database size in pages after the last commit; 0 if none was made or found since recovery. */
  readonly pageCount: number;
  /** The WAL's checksum chain at frame `maxFrame`. */
  readonly frameChecksum1: number;
  readonly frameChecksum2: number;
  /** As `WalHeader` has them. */
  readonly salt1: number;
  readonly salt2: number;
  readonly bigEndianChecksum: boolean;
  /** Frames known to be in the database file. */
  readonly backfill: number;
  /** Frames a checkpoint may have begun to copy. Not to be relied on: it can be of another generation than the header. */
  readonly backfillAttempted: number;
  /** Frame each of the five read locks protects; 0xffffffff is unused. */
  readonly readMarks: readonly number[];
}

export type WalIndexResult =
  | { readonly ok: true; readonly header: WalIndexHeader }
  | { readonly ok: false; readonly reason: 'short' | 'torn' | 'uninitialised' | 'version' | 'checksum' };

/**
 * Decodes the first 136 bytes of a `-shm` file by the rules SQLite's readers follow. Never throws.
 *
 * `short`: fewer than 136 bytes. `torn`: the copies differ, a writer is at it or died at it. `uninitialised`: zeros.
 * `checksum`: SQLite would rebuild the index. `version`: sound, but of an unknown format.
 */
export function decodeWalIndex(bytes: Uint8Array): WalIndexResult {
  if (bytes.length < WAL_INDEX_HEADER_SIZE) return { ok: false, reason: 'short' };
  for (let i = 0; i < COPY_SIZE; i++) {
    if (bytes[i] !== bytes[COPY_SIZE + i]) return { ok: false, reason: 'torn' };
  }
  if (bytes[12] === 0) return { ok: false, reason: 'uninitialised' };

  const view = new DataView(bytes.buffer, bytes.byteOffset, WAL_INDEX_HEADER_SIZE);
  const little = hasChecksum(bytes, view, true);
  if (!little && !hasChecksum(bytes, view, false)) return { ok: false, reason: 'checksum' };
  if (view.getUint32(0, little) !== WAL_VERSION) return { ok: false, reason: 'version' };
  const storedPageSize = view.getUint16(14, little);
  const readMarks: number[] = [];
  for (let i = 0; i < READ_MARKS; i++) readMarks.push(view.getUint32(100 + 4 * i, little));
  return {
    ok: true,
    header: {
      changeCount: view.getUint32(8, little),
      pageSize: (storedPageSize & 0xfe00) + ((storedPageSize & 1) << 16),
      maxFrame: view.getUint32(16, little),
      pageCount: view.getUint32(20, little),
      frameChecksum1: view.getUint32(24, little),
      frameChecksum2: view.getUint32(28, little),
      salt1: view.getUint32(32),
      salt2: view.getUint32(36),
      bigEndianChecksum: bytes[13] !== 0,
      backfill: view.getUint32(96, little),
      backfillAttempted: view.getUint32(128, little),
      readMarks,
    },
  };
}

/** Only a header read in its writer's byte order has a right checksum. */
function hasChecksum(bytes: Uint8Array, view: DataView, little: boolean): boolean {
  const checksum = new WalChecksum(!little);
  checksum.update(bytes, 0, 40);
  return checksum.s1 === view.getUint32(40, little) && checksum.s2 === view.getUint32(44, little);
}
