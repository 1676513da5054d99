/**
 * One look at a live WAL: which index header, if any, says where its last commit ends.
 *
 * Invariants:
 * 1. The `-shm` header governs only if both copies are equal, its checksum is right and its salts are the WAL
 *    header's. Whoever follows must also find that the WAL's checksum chain at `maxFrame` is the header's.
 * 2. A restart publishes new salts, the first one more than before, with `maxFrame` 0 in the `-shm` before the WAL's
 *    header is rewritten. So salts that differ in this way mean: every frame in the WAL is in the database already. An
 *    emptied WAL may be begun with salts that nobody has published: none of its frames is a commit before it is. With
 *    frames in the index, salts that differ mean that index and WAL do not belong together.
 * 3. A header in the middle of a change is read again, never acted upon.
 * 4. Without a usable header the WAL's own checksum chain says where the last commit ends, as it does for SQLite's
 *    recovery. That is so in exclusive locking mode, where the index lives in the writer's memory.
 */

import { FormatError } from '../errors.js';
import { decodeWalHeader, WAL_HEADER_SIZE, type WalHeader, WalVersionError } from '../sqlite/wal.js';
import { decodeWalIndex, WAL_INDEX_HEADER_SIZE, type WalIndexHeader } from '../sqlite/wal-index.js';
import { type OpenFile, readFully } from './files.js';

export type WalView =
  /** No frames: a WAL without a header, or with one that no index and no recovery accepts. */
  | { readonly kind: 'empty'; readonly index: WalIndexHeader | undefined }
  /** The index header governs. */
  | { readonly kind: 'governed'; readonly index: WalIndexHeader; readonly wal: WalHeader }
  /** A restart is published and nothing is written under it; `wal` is the old generation, still there. */
  | { readonly kind: 'restarted'; readonly index: WalIndexHeader; readonly wal: WalHeader }
  /** An emptied WAL has been begun, and nothing in it is published. */
  | { readonly kind: 'begun'; readonly index: WalIndexHeader; readonly wal: WalHeader }
  /** Only the WAL itself can say. */
  | { readonly kind: 'ungoverned'; readonly wal: WalHeader }
  /** Half of a change was seen: look again. */
  | {
      readonly kind: 'changing';
      readonly why: string;
      readonly key: string;
      /** What is left if the index is none. */
      readonly otherwise: WalView;
    }
  /** The WAL's header is damaged or of an unknown version, and not to be passed over. */
  | { readonly kind: 'unreadable'; readonly error: FormatError };

const walBytes = new Uint8Array(WAL_HEADER_SIZE);
const indexBytes = new Uint8Array(WAL_INDEX_HEADER_SIZE);
const NO_FRAMES: WalView = { kind: 'empty', index: undefined };

/** Reads both headers once. Cheap: two reads of less than 200 bytes. */
export function viewWal(wal: OpenFile, shm: OpenFile | undefined): WalView {
  // The index first: a WAL header written after it can only be newer, which shows as differing salts.
  let index: WalIndexHeader | undefined;
  let torn = false;
  const indexGot = shm === undefined ? 0 : readFully(shm.fd, indexBytes, WAL_INDEX_HEADER_SIZE, 0);
  if (shm !== undefined) {
    const result = decodeWalIndex(indexBytes.subarray(0, indexGot));
    if (result.ok) index = result.header;
    else torn = result.reason !== 'version';
  }
  const walGot = readFully(wal.fd, walBytes, WAL_HEADER_SIZE, 0);
  const changing = (why: string, otherwise: WalView): WalView => {
    const [walText, indexText] = [text(walBytes, walGot), text(indexBytes, indexGot)];
    return { kind: 'changing', why, key: `${walText} ${indexText}`, otherwise };
  };
  if (walGot === 0) {
    if (torn) return changing('the index is half written', NO_FRAMES);
    if (index !== undefined && index.maxFrame > 0) return changing('the WAL was just emptied', NO_FRAMES);
    return { kind: 'empty', index };
  }
  if (walGot < WAL_HEADER_SIZE) return changing('the WAL has half a header', NO_FRAMES);
  let header: WalHeader;
  try {
    header = decodeWalHeader(walBytes);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const passedOver = index === undefined ? !(error instanceof WalVersionError) : index.maxFrame === 0;
    return changing(error.message, passedOver ? NO_FRAMES : { kind: 'unreadable', error });
  }
  const alone: WalView = { kind: 'ungoverned', wal: header };
  if (torn) return changing('the index is half written', alone);
  if (index === undefined) return alone;
  if (index.salt1 === header.salt1 && index.salt2 === header.salt2) {
    if (index.maxFrame > 0 && index.pageSize !== header.pageSize) {
      return changing('the index and the WAL disagree on the page size', alone);
    }
    return { kind: 'governed', index, wal: header };
  }
  if (index.maxFrame === 0) {
    return { kind: index.salt1 === (header.salt1 + 1) >>> 0 ? 'restarted' : 'begun', index, wal: header };
  }
  return changing('the index and the WAL are of different generations', alone);
}

/** Equal for equal bytes: what stays half changed for long was abandoned. */
function text(bytes: Uint8Array, length: number): string {
  return Buffer.from(bytes.buffer, 0, length).toString('latin1');
}
