/**
 * The commit counter of the `-shm` header (`iChange`) as evidence that no commit was missed.
 *
 * Invariants:
 * 1. The counter grows by one for each commit and is set to 0 by recovery, on the same inode. So two readings compare
 *    only within one *epoch*: no recovery between them.
 * 2. Before a recovery that follows the end of all connections the first opener truncates the file, which moves its
 *    ctime and raises a file event. Writes through the mapping may move the ctime too (at write-back), but raise none.
 *    So the epoch is the same if device and inode are and either the ctime has not moved since it was old enough to
 *    move visibly, or events were being watched and none came.
 * 3. A reading that is not certain is none at all: it proves nothing, it is never taken for 0.
 */

import { performance } from 'node:perf_hooks';
import { eventTurn, type FileEvents } from './file-events.js';
import { type FileStamp, isSameFile, type OpenFile, SETTLED_NS, stampOf } from './files.js';

/** A reading of the counter that belongs to a position. */
export interface CountReading {
  readonly count: number;
  readonly dev: bigint;
  readonly ino: bigint;
  readonly ctimeNs: bigint;
  /** Whether the ctime was old enough when read that any later change moves it. */
  readonly settled: boolean;
  /** Events seen before the reading; -1 if none were being watched. */
  readonly events: number;
  /** Monotonic clock, ms. */
  readonly atMs: number;
}

/** What must be known from before the header was read, for `reading` to belong to that header. */
export interface BeforeReading {
  readonly stamp: FileStamp;
  readonly settled: boolean;
  readonly events: number;
  readonly atMs: number;
}

/** Take this, then read the header, then call `reading`. */
export async function beforeReading(shm: OpenFile, events: FileEvents): Promise<BeforeReading> {
  // A ctime that moved just now has its event still under way; it would count against this very reading.
  if (events.working && !isOld(stampOf(shm).ctimeNs)) await eventTurn();
  const stamp = stampOf(shm);
  return {
    stamp,
    settled: isOld(stamp.ctimeNs),
    events: events.working ? events.shmCount : -1,
    atMs: performance.now(),
  };
}

export function reading(before: BeforeReading, count: number): CountReading {
  const { stamp } = before;
  return {
    count,
    dev: stamp.dev,
    ino: stamp.ino,
    ctimeNs: stamp.ctimeNs,
    settled: before.settled,
    events: before.events,
    atMs: before.atMs,
  };
}

/** Whether a change now would visibly move a time that was read as this. */
function isOld(ctimeNs: bigint): boolean {
  return BigInt(Date.now()) * 1_000_000n - ctimeNs > SETTLED_NS;
}

/** Whether the header read just now, from `shm`, counts on from `earlier`. Ask after the header was read. */
export async function isSameEpoch(
  earlier: CountReading,
  shm: OpenFile,
  events: FileEvents,
): Promise<boolean> {
  if (!isSameFile(earlier, shm)) return false;
  if (earlier.settled && stampOf(shm).ctimeNs === earlier.ctimeNs) return true;
  if (earlier.events < 0 || !events.working) return false;
  await eventTurn();
  return events.trustedSince <= earlier.atMs && events.shmCount === earlier.events;
}

/** Commits between two counts, modulo 2³². */
export function commitsBetween(earlier: number, later: number): number {
  return (later - earlier) >>> 0;
}
