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

/** If the loop did not turn for longer than this, the kernel's queue of events may have overflowed. */
const EVENTS_TRUSTED_MS = 5000;

/** What must be known from before the header was read, for `reading` to belong to that header. */
export interface BeforeReading {
  readonly stamp: FileStamp;
  readonly events: number;
  readonly atMs: number;
  readonly nowMs: number;
}

/** Take this, then read the header, then call `reading`. */
export function beforeReading(shm: OpenFile, events: FileEvents): BeforeReading {
  return {
    stamp: stampOf(shm),
    events: events.working ? events.shmCount : -1,
    atMs: performance.now(),
    nowMs: Date.now(),
  };
}

export function reading(before: BeforeReading, count: number): CountReading {
  const { stamp } = before;
  return {
    count,
    dev: stamp.dev,
    ino: stamp.ino,
    ctimeNs: stamp.ctimeNs,
    settled: BigInt(before.nowMs) * 1_000_000n - stamp.ctimeNs > SETTLED_NS,
    events: before.events,
    atMs: before.atMs,
  };
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
  if (performance.now() - earlier.atMs > EVENTS_TRUSTED_MS) return false;
  await eventTurn();
  return events.shmCount === earlier.events;
}

/** Commits between two counts, modulo 2³². */
export function commitsBetween(earlier: number, later: number): number {
  return (later - earlier) >>> 0;
}
