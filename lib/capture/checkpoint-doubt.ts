/**
 * Whether pages that were read from the database can be of another state than the one that the index led to.
 *
 * While an index governs, a checkpoint copies frames up to its last one, and whoever reads the database has these anyway.
 * If it is stale, somebody who has the database to himself copies commits of his own, which it does not show; the pages
 * read may then be of two states. Where his lock cannot be seen, this tells whether that can have happened.
 *
 * Invariants, of an index that nobody is seen to use, with the same index before and after the look:
 * 1. Two commits beyond it are somebody's who does not use it.
 * 2. A single one may be his, or one that was never published (index-trust.ts). Nobody copies the latter. So if the database
 *    is at rest and has none of its pages, it was not copied, and what was read is right either way. It is right, too, if
 *    the database had all of it before reading began, and the index nothing to lay over that.
 * 3. With no frame in the index there is nothing to be copied: who writes to the database does not use it.
 */

import type { WalIndexHeader } from '../sqlite/wal-index.js';
import { type FileStamp, isSettled, readFully, stampOf, stampsEqual } from './files.js';
import {
  type ChainPosition,
  FrameReader,
  generationStart,
  isGeneration,
  lastCommit,
} from './frame-reader.js';
import { indexKey, useOf, type WalPair } from './index-trust.js';
import { isCheckpointed } from './restart-proof.js';
import { viewWal, type WalView } from './wal-view.js';

/** What things were like before the first page was read. */
export interface BeforePages {
  readonly index: string | undefined;
  readonly database: FileStamp;
  /** Whether the database's times were old enough to show any later change. */
  readonly settled: boolean;
}

export function beforePages({ database }: WalPair, index: WalIndexHeader | undefined): BeforePages {
  const stamp = stampOf(database);
  return { index: index && indexKey(index), database: stamp, settled: isSettled(stamp) };
}

/** None; or look again, everything having moved on; or why, and whether the index has proven stale. */
export type Doubt = undefined | 'again' | { readonly why: string; readonly isStale: boolean };

/** Commits in the WAL that the index does not show, as far as it matters how many. */
interface Beyond {
  readonly commits: 0 | 1 | 2;
  readonly from: ChainPosition;
  readonly to: ChainPosition;
}

/** Ask after the last page was read, and after everything up to the last frame of `index`, at `position`, was. */
export async function doubtPages(
  pair: WalPair,
  index: WalIndexHeader,
  position: ChainPosition,
  before: BeforePages,
): Promise<Doubt> {
  const use = useOf(pair);
  if (use === 'used') return undefined;
  if (use === 'unused') return { why: 'somebody holds the database for himself', isStale: false };
  const key = indexKey(index);
  const view = viewWal(pair.wal, pair.shm);
  const beyond = await beyondIndex(pair, view, position);
  if (beyond === undefined) return 'again';
  const share = beyond.commits === 1 ? await copied(pair, beyond) : 'none';
  const now = stampOf(pair.database);
  const again = viewWal(pair.wal, pair.shm);
  const isSame = again.kind === view.kind && 'index' in again && again.index !== undefined;
  if (!isSame || indexKey(again.index!) !== key) return 'again';
  if (beyond.commits === 2) return { why: 'commits stand beyond the index', isStale: true };
  const isUnmoved = before.settled && stampsEqual(before.database, now);
  const isNothingLeft = index.maxFrame === 0;
  if (beyond.commits === 0) {
    if (!isNothingLeft || isUnmoved || key !== before.index) return undefined;
    return { why: 'the database was written, although its index has no frames', isStale: false };
  }
  if (share === 'none') return isSettled(now) ? undefined : 'again';
  if (share === 'all' && isNothingLeft && isUnmoved) return undefined;
  return {
    why: 'the database has pages of a commit that its index does not show: the next one will tell',
    isStale: false,
  };
}

async function beyondIndex(
  pair: WalPair,
  view: WalView,
  position: ChainPosition,
): Promise<Beyond | undefined> {
  if (view.kind === 'empty') return { commits: 0, from: position, to: position };
  if (view.kind === 'governed' || view.kind === 'begun') {
    if (view.kind === 'governed' && !isGeneration(position, view.wal)) return undefined;
    const from = view.kind === 'governed' ? position : generationStart(view.wal);
    const { chain, commits } = await lastCommit(pair.wal, from);
    return { commits: commits > 1 ? 2 : commits === 1 ? 1 : 0, from, to: chain };
  }
  if (view.kind !== 'restarted') return undefined;
  // The database has all that its index has counted.
  const start = generationStart(view.wal);
  const { chain, lastBegins } = await lastCommit(pair.wal, start);
  if (await isCheckpointed(pair, start, chain)) return { commits: 0, from: chain, to: chain };
  const isAllButOne = await isCheckpointed(pair, start, lastBegins);
  return { commits: isAllButOne ? 1 : 2, from: lastBegins, to: chain };
}

/** How much of a commit the database has. */
async function copied(pair: WalPair, { from, to }: Beyond): Promise<'none' | 'some' | 'all'> {
  if (await isCheckpointed(pair, from, to)) return 'all';
  const { pageSize } = to;
  const held = Buffer.alloc(pageSize);
  let isSome = false;
  await new FrameReader(from).read(pair.wal.fd, to.frame, (pgno, _commit, chunk, at) => {
    const got = readFully(pair.database.fd, held, pageSize, (pgno - 1) * pageSize);
    isSome = got > 0 && held.fill(0, got).equals(chunk.subarray(at, at + pageSize));
    return !isSome;
  });
  return isSome ? 'some' : 'none';
}
