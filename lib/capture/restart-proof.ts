/**
 * From one generation of a WAL to the next with proof that no commit lies between.
 *
 * Invariants:
 * 1. Nothing is lost if the commits counted since the position are as many as the index's counter has grown, within one
 *    epoch (change-count.ts).
 * 2. A restart adds 1 to the first salt. So with exactly that step the old generation's last commits are still taken from
 *    behind the position, as many as the counter says and no more.
 * 3. A frame that repeats the one before, bytes and all, may be padding, which is not counted, or a commit, which is. It
 *    changes nothing, but as either it could make up for a commit that was lost. So where repeats leave the count open,
 *    and where there is no count, the place itself must show it: one restart, and the last frame taken from the old
 *    generation not overwritten yet, nor the file cut behind it, so that what stood behind it would still be there.
 * 4. The last commit of a generation may be one whose writer died before publishing it, and then it is none. Where
 *    repeats leave the count open, or where there is none, it counts only if it is in the database: before a restart
 *    everything published is.
 */

import type { WalHeader } from '../sqlite/wal.js';
import { readFully } from './files.js';
import {
  type ChainPosition,
  FrameReader,
  type FrameVisitor,
  isTailWhole,
  lastCommit,
} from './frame-reader.js';
import type { WalPair } from './index-trust.js';
import type { Gap, WalPosition } from './wal-position.js';

/** What the live generation holds, and who says so. */
export interface LiveGeneration {
  readonly header: WalHeader;
  /** Behind its last commit. */
  readonly ahead: FrameReader;
  /** Commits that the index counts since the position, or why it cannot tell. */
  readonly missing: number | Gap;
}

/**
 * Hands on what is left of the position's generation.
 * @returns 'reached' if all of it was, and the live generation is the next thing to read; 'more' if `visit` said stop
 */
export async function finishGeneration(
  position: WalPosition,
  pair: WalPair,
  live: LiveGeneration,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  const { header, ahead, missing } = live;
  const isNext = header.salt1 === (position.chain.salt1 + 1) >>> 0;
  let read: 'reached' | 'more' | Gap;
  if (typeof missing === 'number') {
    const needed = missing - ahead.commits;
    if (needed < 0) return { gap: `the index counts ${missing} commits, the WAL holds ${ahead.commits}` };
    const slack = ahead.repeats + position.repeats;
    if (isNext || needed === 0) read = await readTail(position, pair, needed, slack, visit);
    else read = noneMissing(needed);
  } else if (isNext) read = await readWholeTail(position, pair, missing, visit);
  else read = missing;
  if (read === 'reached' && position.isInsideCommit) {
    return { gap: `the WAL was restarted inside a commit, behind frame ${position.reader.frame}` };
  }
  return read;
}

/**
 * Takes `needed` commits from behind the position; as many fewer as there may be commits among the `slack` repeats seen
 * elsewhere, if nothing there was overwritten. All of it is looked at before anything is handed on.
 */
export async function readTail(
  position: WalPosition,
  pair: WalPair,
  needed: number,
  slack: number,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  if (position.isNowhere) return noneMissing(needed);
  const { frame } = position.chain;
  const tail = await lastCommit(pair.wal, position.chain);
  const left = needed - tail.commits;
  // The counts contradict what stands there.
  if (left < 0) return { gap: `a commit behind frame ${frame} was not counted` };
  const possible = slack + tail.repeats;
  if (left > possible) return { gap: `${left} of ${needed} commits behind frame ${frame} are overwritten` };
  if (needed === 0) return 'reached';
  if (left < possible && !(await isCheckpointed(pair, tail.lastBegins, tail.chain))) {
    return { gap: `the last commit behind frame ${frame} may be one that was never published` };
  }
  const read = await position.readTo(pair.wal, tail.chain.frame, visit);
  if (read === 'more') return 'more';
  if (read === 'reached' && (left === 0 || isTailWhole(pair.wal, position.chain, tail.lastFrame))) {
    return 'reached';
  }
  return { gap: `what stood behind frame ${frame} is overwritten` };
}

/** Whether the database has every page as it is in the WAL behind `from` up to the commit at `to`. */
export async function isCheckpointed(
  { wal, database }: WalPair,
  from: ChainPosition,
  to: ChainPosition,
): Promise<boolean> {
  const { pageSize } = to;
  const held = Buffer.alloc(pageSize);
  const differing = new Set<number>();
  let pageCount = 0;
  const read = await new FrameReader(from).read(wal.fd, to.frame, (pgno, commit, chunk, at) => {
    const got = readFully(database.fd, held, pageSize, (pgno - 1) * pageSize);
    held.fill(0, got);
    if (held.equals(chunk.subarray(at, at + pageSize))) differing.delete(pgno);
    else differing.add(pgno);
    pageCount = commit;
    return true;
  });
  // No checkpoint writes pages beyond the end of the database.
  return read === 'reached' && [...differing].every((pgno) => pgno > pageCount);
}

/** Takes whatever commits stand behind the position, where nothing counts them. */
async function readWholeTail(
  position: WalPosition,
  pair: WalPair,
  uncounted: Gap,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  if (position.isNowhere) return uncounted;
  const { chain, lastBegins, lastFrame } = await lastCommit(pair.wal, position.chain);
  if (!(await isCheckpointed(pair, lastBegins, chain))) return uncounted;
  const read = await position.readTo(pair.wal, chain.frame, visit);
  if (read === 'more') return 'more';
  return read === 'reached' && isTailWhole(pair.wal, position.chain, lastFrame) ? 'reached' : uncounted;
}

/** Where nothing can be taken any more. */
export function noneMissing(missing: number): 'reached' | Gap {
  return missing === 0 ? 'reached' : { gap: `${missing} commits were made in generations that are gone` };
}
