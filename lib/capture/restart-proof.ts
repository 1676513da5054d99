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
 */

import type { WalHeader } from '../sqlite/wal.js';
import type { OpenFile } from './files.js';
import { type FrameReader, type FrameVisitor, isTailWhole, lastCommit } from './frame-reader.js';
import type { Gap, WalPosition } from './wal-position.js';

/** What the live generation holds, and who says so. */
export interface LiveGeneration {
  readonly header: WalHeader;
  /** Behind its last commit. */
  readonly ahead: FrameReader;
  /** Commits that the index counts since the position, or why it cannot tell. */
  readonly missing: number | Gap;
  /** Whether nobody but the one who keeps his index in memory can have written. */
  readonly isAlone: boolean;
}

/**
 * Hands on what is left of the position's generation.
 * @returns 'reached' if all of it was, and the live generation is the next thing to read; 'more' if `visit` said stop
 */
export async function finishGeneration(
  position: WalPosition,
  wal: OpenFile,
  live: LiveGeneration,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  const { header, ahead, missing, isAlone } = live;
  const isNext = header.salt1 === (position.chain.salt1 + 1) >>> 0;
  let read: 'reached' | 'more' | Gap;
  if (typeof missing === 'number') {
    const needed = missing - ahead.commits;
    if (needed < 0) return { gap: `the index counts ${missing} commits, the WAL holds ${ahead.commits}` };
    const slack = ahead.repeats + position.repeats;
    if (isNext || needed === 0) read = await readTail(position, wal, needed, slack, visit);
    else read = noneMissing(needed);
  } else if (isNext) read = await readWholeTail(position, wal, isAlone, missing, visit);
  else read = missing;
  if (read === 'reached' && position.isInsideCommit) {
    return { gap: `the WAL was restarted inside a commit, behind frame ${position.reader.frame}` };
  }
  return read;
}

/**
 * Takes `needed` commits from behind the position; as many fewer as there may be commits among the `slack` repeats seen
 * elsewhere, if nothing there was overwritten.
 */
export async function readTail(
  position: WalPosition,
  wal: OpenFile,
  needed: number,
  slack: number,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  if (position.isNowhere) return noneMissing(needed);
  const { frame } = position.chain;
  if (needed === 0) {
    // The counts agree; a commit still standing behind the position contradicts them.
    const { commits } = await lastCommit(wal, position.chain);
    return commits === 0 ? 'reached' : { gap: `a commit behind frame ${frame} was not counted` };
  }
  const { reader } = position;
  const enough = reader.commits + needed;
  const possible = slack - reader.repeats;
  const read = await position.read(wal, Number.POSITIVE_INFINITY, visit, {
    goOn: () => reader.commits < enough,
  });
  if (reader.commits >= enough) return 'reached';
  if (read === 'stopped') return 'more';
  const left = enough - reader.commits;
  if (left <= possible + reader.repeats && isTailWhole(wal, position.chain, reader.frame)) return 'reached';
  return { gap: `${left} of ${needed} commits behind frame ${frame} are overwritten` };
}

/** Takes whatever commits stand behind the position, where nothing counts them. */
async function readWholeTail(
  position: WalPosition,
  wal: OpenFile,
  isAlone: boolean,
  uncounted: Gap,
  visit: FrameVisitor,
): Promise<'reached' | 'more' | Gap> {
  if (position.isNowhere) return uncounted;
  const { chain, commits, lastFrame } = await lastCommit(wal, position.chain);
  // The last of them may be one whose writer died before publishing it.
  if (commits > 0 && !isAlone) return uncounted;
  const read = await position.readTo(wal, chain.frame, visit);
  if (read === 'more') return 'more';
  return read === 'reached' && isTailWhole(wal, position.chain, lastFrame) ? 'reached' : uncounted;
}

/** Where nothing can be taken any more. */
export function noneMissing(missing: number): 'reached' | Gap {
  return missing === 0 ? 'reached' : { gap: `${missing} commits were made in generations that are gone` };
}
