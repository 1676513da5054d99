/**
 * Removes what no promised state needs any more.
 *
 * Promised are: the newest state; the end of each interval of level 1 since the moment `snapshotRetentionMs` ago; each
 * single TXID of the last `level0RetentionMs`. What goes, therefore:
 *
 * 1. Snapshots (level 9) older than the newest one that is itself older than both retentions: the *anchor*. Moments after
 *    it need it. Where no file that holds a whole database is that old, none goes.
 * 2. Files of the other levels that end at or before the anchor.
 * 3. Files of level 0 that lie inside a file of level 1 which is old enough: all of those go, or none, for one without its
 *    predecessor leads nowhere.
 *
 * The newest file of every level stays: the level goes on from it.
 *
 * Before anything is removed, planning shows that every state which the remaining files end at, from the anchor on, is
 * still led to. Every moment between two removals is as good, since removing never makes more reachable and
 *
 * - snapshots go before what only they led to: a moment before the anchor is refused then, never answered with a much
 *   older state;
 * - level 0 goes from its newer end: a file never stays behind whose predecessor is gone.
 *
 * How old files are is told in file-times.ts. Each removal names the version that was listed, under the lease.
 */

import { ConflictError, LeaseLostError, throwIfAborted } from '../../errors.js';
import { formatTxid } from '../../ltx/header.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { reachableStates } from '../plan.js';
import { type StoredTimes, storedTimes, timesOf } from './file-times.js';
import type { Lease } from './lease.js';
import { removeSnapshotSums } from './snapshot-sums.js';

export interface RetentionSettings {
  /** How far back in time states can be restored, ms. */
  readonly snapshotRetentionMs: number;
  /** How long each single TXID can be restored, ms. */
  readonly level0RetentionMs: number;
}

export interface RetainResult {
  readonly removed: readonly LtxFileInfo[];
  /** Why nothing was removed though something is due: the remaining files would not lead where they should. */
  readonly refused?: string;
}

/** So many files are removed between two looks at the lease and the signal. */
const BATCH = 32;

/** Throws LeaseLostError, ABORTED, REPLICA. What was removed until then is gone, and everything promised is there. */
export async function retain(
  replica: Replica,
  lease: Lease,
  settings: RetentionSettings & { readonly nowMs?: number },
): Promise<RetainResult> {
  // Of two clocks the one that removes less.
  const nowMs = settings.nowMs ?? Math.min(Date.now(), await replica.clock());
  const files = await replica.list();
  const plan = planRetention(files, settings, nowMs, await storedTimes(replica, files, nowMs));
  if (plan.refused !== undefined) return { removed: [], refused: plan.refused };
  const removed: LtxFileInfo[] = [];
  for (let i = 0; i < plan.remove.length; i += BATCH) {
    throwIfAborted(lease.signal, 'removing files');
    const batch = plan.remove.slice(i, i + BATCH);
    // First what stands beside a file: without the file nobody would find it again.
    await removeSnapshotSums(replica, batch);
    try {
      await replica.remove(batch, lease.version);
    } catch (error) {
      // Another writer replaced a file: the next run sees it as it is.
      if (error instanceof ConflictError && !(error instanceof LeaseLostError)) break;
      throw error;
    }
    removed.push(...batch);
  }
  return { removed };
}

export interface RetentionPlan {
  /** In the order in which they are to be removed. */
  readonly remove: readonly LtxFileInfo[];
  readonly refused?: string;
}

/** Pure: what is to be removed of a listing at `nowMs`. `stored` tells of files whose time is in the future. */
export function planRetention(
  files: readonly LtxFileInfo[],
  settings: RetentionSettings,
  nowMs: number,
  stored: StoredTimes = new Map(),
): RetentionPlan {
  const times = timesOf(files, stored, nowMs);
  const { snapshotRetentionMs, level0RetentionMs } = settings;
  // What leads to a single TXID that is promised is kept, too.
  const anchor = anchorOf(files, times, nowMs - Math.max(snapshotRetentionMs, level0RetentionMs));
  if (anchor === undefined) return { remove: [] };
  const level1 = files.filter(({ level }) => level === 1).sort(byEnd);
  const newestOfLevel = new Set([
    ...new Map([...files].sort(byEnd).map((file) => [file.level, file])).values(),
  ]);
  const oldMs = nowMs - level0RetentionMs;
  const isBefore = (file: LtxFileInfo, momentMs: number): boolean => times.get(file)! < momentMs;
  const isDue = (file: LtxFileInfo): boolean => {
    if (file === anchor || newestOfLevel.has(file)) return false;
    if (file.maxTxid <= anchor.maxTxid) return file.level !== 0 || isBefore(file, oldMs);
    return file.level === 0 && isCovered(file, level1, (cover) => isBefore(cover, oldMs));
  };
  const due = files.filter(isDue);
  if (due.length === 0) return { remove: [] };
  const gone = new Set(due);
  const refused = whyRefused(
    files,
    files.filter((file) => !gone.has(file)),
    anchor,
  );
  return refused === undefined ? { remove: inOrder(due, anchor) } : { remove: [], refused };
}

/**
 * The file that holds a whole database from which on everything is kept: the newest one of `momentMs` or before, else the
 * oldest of all. Of several that hold the same state, the one at the highest level.
 */
function anchorOf(
  files: readonly LtxFileInfo[],
  times: ReadonlyMap<LtxFileInfo, number>,
  momentMs: number,
): LtxFileInfo | undefined {
  const full = files.filter(({ minTxid }) => minTxid === 1n).sort(byEnd);
  const old = full.filter((file) => times.get(file)! <= momentMs);
  return old.length > 0 ? old[old.length - 1] : full.find((file, i) => full[i + 1]?.maxTxid !== file.maxTxid);
}

function byEnd(a: LtxFileInfo, b: LtxFileInfo): number {
  if (a.maxTxid !== b.maxTxid) return a.maxTxid < b.maxTxid ? -1 : 1;
  return a.level - b.level;
}

/** Whether one file of level 1 (ascending by end), itself old, holds all of it: it ends no earlier. */
function isCovered(
  file: LtxFileInfo,
  level1: readonly LtxFileInfo[],
  isOld: (cover: LtxFileInfo) => boolean,
): boolean {
  let low = 0;
  let high = level1.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (level1[middle].maxTxid < file.maxTxid) low = middle + 1;
    else high = middle;
  }
  if (low === level1.length) return false;
  return level1[low].minTxid <= file.minTxid && isOld(level1[low]);
}

function inOrder(due: readonly LtxFileInfo[], anchor: LtxFileInfo): LtxFileInfo[] {
  const isFull = ({ minTxid }: LtxFileInfo): boolean => minTxid === 1n;
  const isBefore = ({ maxTxid }: LtxFileInfo): boolean => maxTxid <= anchor.maxTxid;
  const ascending = [...due].sort(byEnd);
  return [
    ...ascending.filter((file) => isBefore(file) && isFull(file)),
    ...ascending.filter((file) => isBefore(file) && !isFull(file)),
    ...ascending.filter((file) => !isBefore(file)).reverse(),
  ];
}

/** The proof; what it misses, or undefined. */
function whyRefused(
  before: readonly LtxFileInfo[],
  after: readonly LtxFileInfo[],
  anchor: LtxFileInfo,
): string | undefined {
  const reachable = new Set(reachableStates(after).map(({ txid }) => txid));
  const wasReachable = new Set(reachableStates(before).map(({ txid }) => txid));
  for (const { maxTxid } of after) {
    if (maxTxid < anchor.maxTxid || reachable.has(maxTxid) || !wasReachable.has(maxTxid)) continue;
    return `TXID ${formatTxid(maxTxid)} could not be restored any more`;
  }
  return undefined;
}
