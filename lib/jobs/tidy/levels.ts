/**
 * Which files of a replica are to be merged next. Pure: a listing in, a plan out.
 *
 * Level 0 holds what was captured. Level n holds what was merged of level n-1, in steps of its interval: all files of
 * whose time one interval has passed become one file, so that the end of each interval stays a state that can be restored.
 *
 * 1. A level goes on where its last file ended. Its files end where files of the level below do, so each of those lies
 *    wholly inside one of them.
 * 2. The first file of level 1 begins after the full first file once a snapshot stands at level 9, so that a whole
 *    database is not carried up through every level.
 * 3. A merge is a way from the level's end to a later state. Normally it goes through the files of the level below. Where
 *    those have a hole, or one of them is damaged, it goes through whatever files lead there, such as a snapshot that
 *    reaches beyond it.
 */

import { JetliteError } from '../../errors.js';
import { formatTxid } from '../../ltx/header.js';
import { SNAPSHOT_LEVEL, versionKey } from '../../replica/names.js';
import type { LtxFileInfo } from '../../replica/replica.js';
import { planRestore } from '../plan.js';
import { type StoredTimes, timeOf } from './file-times.js';

/** Files that become one. */
export interface Merge {
  readonly level: number;
  readonly minTxid: bigint;
  /** In order; the merged file ends where the last one does. */
  readonly files: readonly LtxFileInfo[];
}

/** Why there is nothing to merge: nothing is due, or nothing leads on from where the level ends. */
export type NoMerge = { readonly kind: 'current' } | { readonly kind: 'hole'; readonly message: string };

/**
 * The next merge into `level` (1 to 8) at `nowMs`. `avoid`: files known to be damaged.
 * @returns the merge, or why there is none
 */
export function nextMerge(
  files: readonly LtxFileInfo[],
  level: number,
  intervalMs: number,
  nowMs: number,
  avoid: ReadonlySet<string> = new Set(),
): Merge | NoMerge {
  const sources = ofLevel(files, level - 1);
  const end = endOf(files, level);
  const targets = dueEnds(
    sources.filter(({ maxTxid }) => maxTxid > end),
    intervalMs,
    nowMs,
  );
  if (targets.length === 0) return { kind: 'current' };
  const sound = (file: LtxFileInfo): boolean => !avoid.has(versionKey(file));
  const below = sources.filter(sound);
  const all = files.filter(sound);
  for (const target of targets) {
    try {
      const way = wayTo(below, end, target) ?? planRestore(all, { kind: 'txid', txid: target }, end).files;
      return { level, minTxid: end + 1n, files: way };
    } catch (error) {
      if (!(error instanceof JetliteError && error.code === 'NOT_FOUND')) throw error;
    }
  }
  const message =
    `level ${level} cannot go on: no files lead from TXID ${formatTxid(end)} to ${formatTxid(targets[0])} ` +
    'or beyond; the next snapshot will';
  return { kind: 'hole', message };
}

/**
 * Whether a snapshot at level 9 is due: `intervalMs` after the last one or with `force`, if there is anything new.
 * `stored` tells of those whose time is in the future (file-times.ts).
 */
export function isSnapshotDue(
  files: readonly LtxFileInfo[],
  intervalMs: number,
  nowMs: number,
  { force = false, stored = new Map() }: { readonly force?: boolean; readonly stored?: StoredTimes } = {},
): boolean {
  if (files.length === 0) return false;
  const last = newest(ofLevel(files, SNAPSHOT_LEVEL));
  if (last === undefined) return true;
  if (last.maxTxid >= newest(files)!.maxTxid) return false;
  return force || nowMs - timeOf(last, stored, nowMs) >= intervalMs;
}

/** What a snapshot of the newest state is made of. Throws NOT_FOUND if no sound files lead there. */
export function snapshotMerge(files: readonly LtxFileInfo[], avoid: ReadonlySet<string> = new Set()): Merge {
  const sound = files.filter((file) => !avoid.has(versionKey(file)));
  return { level: SNAPSHOT_LEVEL, minTxid: 1n, files: planRestore(sound, { kind: 'newest' }).files };
}

/** The state that a level ends at: its next file begins with the TXID after it. */
function endOf(files: readonly LtxFileInfo[], level: number): bigint {
  const last = newest(ofLevel(files, level));
  if (last !== undefined) return last.maxTxid;
  const sources = ofLevel(files, level - 1);
  const first = sources.reduce<LtxFileInfo | undefined>(
    (a, b) => (a === undefined || b.minTxid < a.minTxid ? b : a),
    undefined,
  );
  if (first === undefined) return 0n;
  if (level > 1) return first.minTxid - 1n;
  if (ofLevel(files, SNAPSHOT_LEVEL).length === 0) return 0n;
  return first.minTxid === 1n ? first.maxTxid : first.minTxid - 1n;
}

/**
 * Ends of the intervals that are over, ascending: the last TXID captured in each. An interval that lies in the future can
 * only come from a clock that was wrong: nothing would be merged for as long as it was wrong if that were waited for.
 */
function dueEnds(pending: readonly LtxFileInfo[], intervalMs: number, nowMs: number): bigint[] {
  const descending = [...pending].sort((a, b) => (a.maxTxid < b.maxTxid ? 1 : -1));
  const present = Math.floor(nowMs / intervalMs);
  const ends: bigint[] = [];
  let interval = Number.POSITIVE_INFINITY;
  for (const { maxTxid, timestampMs } of descending) {
    // No file is later than the one after it, whatever the clock said.
    const own = Math.min(interval, Math.floor(timestampMs / intervalMs));
    if (own !== present && own < interval) ends.push(maxTxid);
    interval = own;
  }
  return ends.reverse();
}

/** Files of one level one after the other from state `from` to `to`; undefined if they do not lead there. */
function wayTo(level: readonly LtxFileInfo[], from: bigint, to: bigint): LtxFileInfo[] | undefined {
  const way: LtxFileInfo[] = [];
  let at = from;
  const ascending = level
    .filter(({ maxTxid }) => maxTxid > from && maxTxid <= to)
    .sort((a, b) =>
      a.minTxid < b.minTxid ? -1 : a.minTxid > b.minTxid ? 1 : a.maxTxid < b.maxTxid ? -1 : 1,
    );
  for (const file of ascending) {
    if (file.maxTxid <= at) continue;
    if (file.minTxid > at + 1n) return undefined;
    way.push(file);
    at = file.maxTxid;
  }
  return at === to ? way : undefined;
}

function ofLevel(files: readonly LtxFileInfo[], level: number): LtxFileInfo[] {
  return files.filter((file) => file.level === level);
}

function newest(files: readonly LtxFileInfo[]): LtxFileInfo | undefined {
  return files.reduce<LtxFileInfo | undefined>(
    (a, b) => (a === undefined || b.maxTxid > a.maxTxid ? b : a),
    undefined,
  );
}
