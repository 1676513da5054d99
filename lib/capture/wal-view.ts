/**
 * One look at a live WAL: which index header, if any, says where its last commit ends.
 *
 * Invariants:
 * 1. The `-shm` header governs only if both copies are equal, its checksum is right and its salts are the WAL
 *    header's. Whoever follows must also find that the WAL's checksum chain at `maxFrame` is the header's.
 * 2. A restart publishes new salts with `maxFrame` 0 in the `-shm` before the WAL's header is rewritten. So salts
 *    that differ with `maxFrame` 0 mean: every frame in the WAL is in the database already.
 * 3. A header in the middle of a change is read again, never acted upon.
 * 4. Without a usable header the WAL's own checksum chain says where the last commit ends, as it does for SQLite's
 *    recovery. That is so in exclusive locking mode, where the index lives in the writer's memory.
 */

import { FormatError } from '../errors.js';
import { decodeWalHeader, WAL_HEADER_SIZE, type WalHeader } from '../sqlite/wal.js';
import { decodeWalIndex, WAL_INDEX_HEADER_SIZE, type WalIndexHeader } from '../sqlite/wal-index.js';
import { type OpenFile, readFully } from './files.js';

export type WalView =
  /** No frames: no `-wal`, or one without a header yet. */
  | { readonly kind: 'empty'; readonly index: WalIndexHeader | undefined }
  /** The index header governs. */
  | { readonly kind: 'governed'; readonly index: WalIndexHeader; readonly wal: WalHeader }
  /** A restart is published and nothing is written under it; `wal` is the old generation, still there. */
  | { readonly kind: 'restarted'; readonly index: WalIndexHeader; readonly wal: WalHeader }
  /** Only the WAL itself can say. */
  | { readonly kind: 'ungoverned'; readonly wal: WalHeader; readonly index: WalIndexHeader | undefined }
  /** Half of a change was seen: look again. */
  | {
      readonly kind: 'changing';
      readonly why: string;
      readonly key: string;
      readonly wal: WalHeader | undefined;
    }
  /** The WAL's header is damaged or of an unknown version. */
  | { readonly kind: 'unreadable'; readonly error: FormatError };

const walBytes = new Uint8Array(WAL_HEADER_SIZE);
const indexBytes = new Uint8Array(WAL_INDEX_HEADER_SIZE);

/** Reads both headers once. Cheap: two reads of less than 200 bytes. */
export function viewWal(wal: OpenFile, shm: OpenFile | undefined): WalView {
  // The index first: a WAL header written after it can only be newer, which shows as differing salts.
  let index: WalIndexHeader | undefined;
  let torn = false;
  if (shm !== undefined) {
    const got = readFully(shm.fd, indexBytes, WAL_INDEX_HEADER_SIZE, 0);
    const result = decodeWalIndex(got === WAL_INDEX_HEADER_SIZE ? indexBytes : indexBytes.subarray(0, got));
    if (result.ok) index = result.header;
    else torn = result.reason !== 'version';
  }
  const got = readFully(wal.fd, walBytes, WAL_HEADER_SIZE, 0);
  if (got === 0) {
    if (torn) return changing('the index is half written', undefined);
    if (index !== undefined && index.maxFrame > 0) return changing('the WAL was just emptied', undefined);
    return { kind: 'empty', index };
  }
  if (got < WAL_HEADER_SIZE) return changing('the WAL has half a header', undefined);
  let header: WalHeader;
  try {
    header = decodeWalHeader(walBytes);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    // A header that recovery would not accept belongs to a WAL without frames, unless an index says otherwise.
    if (index !== undefined && index.maxFrame === 0) return { kind: 'empty', index };
    return { kind: 'unreadable', error };
  }
  if (torn) return changing('the index is half written', header);
  if (index === undefined) return { kind: 'ungoverned', wal: header, index };
  if (index.salt1 === header.salt1 && index.salt2 === header.salt2) {
    if (index.maxFrame > 0 && index.pageSize !== header.pageSize) {
      return changing('the index and the WAL disagree on the page size', header);
    }
    return { kind: 'governed', index, wal: header };
  }
  if (index.maxFrame === 0) return { kind: 'restarted', index, wal: header };
  return changing('the index and the WAL are of different generations', header);
}

/** `key` is equal for equal bytes: what stays half changed for long was abandoned. */
function changing(why: string, wal: WalHeader | undefined): WalView {
  const key = `${Buffer.from(walBytes).toString('latin1')}${Buffer.from(indexBytes).toString('latin1')}`;
  return { kind: 'changing', why, key, wal };
}
