/**
 * When files were captured, as far as that decides what is due and what is old. Each says so itself, by the clock of the
 * machine it was captured on, and clocks are wrong at times.
 *
 * 1. A time that lies in the future is none: it would be waited for, for years perhaps, and nothing made or removed until
 *    then. When the replica's home got the file counts instead.
 * 2. No state is older than one before it: what was captured while a clock was set back is not removed for looking old.
 *
 * Which state a moment leads to is another matter: that goes by what the files say, always.
 */

import { versionKey } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';

/** When the home got files that are from the future, ms, by versionKey. */
export type StoredTimes = ReadonlyMap<string, number>;

/** Looks for what invariant 1 needs. Throws REPLICA. */
export async function storedTimes(
  replica: Replica,
  files: readonly LtxFileInfo[],
  nowMs: number,
): Promise<StoredTimes> {
  const found = new Map<string, number>();
  const ahead = files.filter(({ timestampMs }) => timestampMs > nowMs);
  if (ahead.length === 0 || replica.storedMs === undefined) return found;
  for (const [i, storedMs] of (await replica.storedMs(ahead)).entries()) {
    if (storedMs !== undefined) found.set(versionKey(ahead[i]), storedMs);
  }
  return found;
}

/** Invariant 1. */
export function timeOf(file: LtxFileInfo, stored: StoredTimes, nowMs: number): number {
  const { timestampMs } = file;
  return timestampMs <= nowMs
    ? timestampMs
    : Math.min(timestampMs, stored.get(versionKey(file)) ?? timestampMs);
}

/** Both invariants, for all `files` of a replica. */
export function timesOf(
  files: readonly LtxFileInfo[],
  stored: StoredTimes,
  nowMs: number,
): ReadonlyMap<LtxFileInfo, number> {
  const times = new Map<LtxFileInfo, number>();
  let latest = Number.NEGATIVE_INFINITY;
  for (const file of [...files].sort((a, b) =>
    a.maxTxid < b.maxTxid ? -1 : a.maxTxid > b.maxTxid ? 1 : 0,
  )) {
    const own = timeOf(file, stored, nowMs);
    // Of what is in the future still nothing is known.
    if (own <= nowMs) latest = Math.max(latest, own);
    times.set(file, Math.max(latest, own));
  }
  return times;
}
