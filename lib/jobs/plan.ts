/**
 * Which LTX files rebuild a state of the database.
 *
 * 1. A file of TXIDs min..max holds every page that changed in them, as it was after max, and the size after max.
 *    Applied to any state from min-1 to max-1 it gives state max: what it repeats, it repeats with the same outcome.
 * 2. State 0 is the empty database. Only a file that begins at TXID 1, a snapshot, can be applied to it. Snapshots
 *    stand at any level; nothing here depends on levels.
 * 3. So states are points, files are edges from each of min-1..max-1 to max, and a plan is the path of fewest bytes
 *    (then fewest files). Edges only go upwards: going through the files by max, one pass finds all paths.
 * 4. A file carries the time of its last transaction. For a state "at or before" a moment only files of that moment
 *    or earlier are used, since any other holds something later. Where those do not lead on, the earliest time of all
 *    files of a state counts for each of them: they differ only in where they begin, and Litestream's snapshots carry
 *    the time at which they were made. It counts for no state after one that is later, so that one file whose time is
 *    too early lets nothing else in.
 * 5. A wish is fulfilled exactly or refused. Where the chain has a hole, an older state is never returned instead.
 * 6. What a moment's own files do not reach is no hole if nothing is missing. Either all files together lead there: then
 *    a file on the way is later, as when a clock was set back, and so is what comes after it. Or it was retired: level 0
 *    goes by age, so it can begin in the middle of a merged file, which holds what is gone. It must be reached itself.
 */

import { JetliteError } from '../errors.js';
import { formatTxid } from '../ltx/header.js';
import { ltxPath, SNAPSHOT_LEVEL } from '../replica/names.js';
import type { LtxFileInfo } from '../replica/replica.js';

export type RestoreWish =
  | { readonly kind: 'newest' }
  | { readonly kind: 'txid'; readonly txid: bigint }
  /** The last state at or before this moment, milliseconds since the epoch. */
  | { readonly kind: 'timestamp'; readonly timestampMs: number };

export interface RestorePlan {
  /** In the order they are to be applied. Empty if the wished state is the one already there. */
  readonly files: readonly LtxFileInfo[];
  /** The state they lead to. */
  readonly txid: bigint;
  /** When that state was captured; undefined if there is no file to tell. */
  readonly timestampMs: number | undefined;
  /** Bytes to read. */
  readonly bytes: number;
}

/** A state that can be reached, by which file, and what that costs from the start. */
interface Step {
  readonly txid: bigint;
  readonly bytes: number;
  readonly fileCount: number;
  readonly file: LtxFileInfo | undefined;
  readonly from: Step | undefined;
}

/** How far files lead. */
interface Reach {
  readonly last: Step;
  /** Files beyond it that show a hole. */
  readonly missed: readonly LtxFileInfo[];
}

/** Throws USAGE if both a TXID and a moment are wished for. */
export function wishOf(options: {
  readonly txid?: bigint | undefined;
  readonly timestampMs?: number | undefined;
}): RestoreWish {
  const { txid, timestampMs } = options;
  if (txid !== undefined && timestampMs !== undefined) {
    throw new JetliteError('USAGE', 'expected a TXID or a timestamp, found both', { hint: 'Leave one out.' });
  }
  if (txid !== undefined) return { kind: 'txid', txid };
  return timestampMs === undefined ? { kind: 'newest' } : { kind: 'timestamp', timestampMs };
}

/**
 * Plans from state `have` (0: from nothing) to the wished one. `files` may hold all levels, in any order.
 * Throws JetliteError NOT_FOUND, which says what can be had instead, if the files do not lead there.
 */
export function planRestore(files: readonly LtxFileInfo[], wish: RestoreWish, have = 0n): RestorePlan {
  if (files.length === 0 && have === 0n) {
    throw new JetliteError('NOT_FOUND', 'the replica holds no LTX files', {
      hint: 'Check its URL and prefix, or make a first backup.',
    });
  }
  const { last, missed } = reachFor(files, wish, have);
  const isMet = wish.kind === 'txid' ? last.txid === wish.txid : missed.length === 0;
  if (!isMet || last.txid === 0n) throw notFound(files, wish, have, { last, missed });
  return {
    files: pathTo(last),
    txid: last.txid,
    timestampMs: last.file?.timestampMs,
    bytes: last.bytes,
  };
}

/** A state that files lead to. */
export interface ReachableState {
  readonly txid: bigint;
  readonly timestampMs: number;
}

/** Every state that can be restored from `files`, ascending. */
export function reachableStates(files: readonly LtxFileInfo[]): ReachableState[] {
  return cheapestSteps(files, 0n).flatMap(({ txid, file }) =>
    file === undefined ? [] : [{ txid, timestampMs: file.timestampMs }],
  );
}

function reachFor(files: readonly LtxFileInfo[], wish: RestoreWish, have: bigint): Reach {
  if (wish.kind === 'timestamp') return reachMoment(files, wish.timestampMs, have);
  return reach(wish.kind === 'newest' ? files : files.filter(({ maxTxid }) => maxTxid <= wish.txid), have);
}

function reach(files: readonly LtxFileInfo[], have: bigint): Reach {
  const steps = cheapestSteps(files, have);
  const last = steps[steps.length - 1];
  return { last, missed: files.filter(({ maxTxid }) => maxTxid > last.txid) };
}

/** Invariants 4 and 6. */
function reachMoment(files: readonly LtxFileInfo[], momentMs: number, have: bigint): Reach {
  const isInTime = ({ timestampMs }: LtxFileInfo): boolean => timestampMs <= momentMs;
  const inTime = files.filter(isInTime);
  const own = reach(inTime, have);
  if (own.missed.length === 0) return own;
  const states = new Set(inTime.map(({ maxTxid }) => maxTxid));
  let later: bigint | undefined;
  for (const { maxTxid } of files) {
    if (!states.has(maxTxid) && (later === undefined || maxTxid < later)) later = maxTxid;
  }
  const { last, missed } = reach(
    files.filter((file) => isInTime(file) || later === undefined || file.maxTxid < later),
    have,
  );
  return { last, missed: holesAmong(missed, files, have) };
}

/** Those of `missed`, all in time and not reached in time, for which something is missing (invariant 6). */
function holesAmong(
  missed: readonly LtxFileInfo[],
  files: readonly LtxFileInfo[],
  have: bigint,
): LtxFileInfo[] {
  const steps = cheapestSteps(files, have);
  const reached = new Set(steps.map(({ txid }) => txid));
  const isReached = ({ minTxid, maxTxid }: LtxFileInfo): boolean => {
    const from = steps[firstAtOrAbove(steps, minTxid - 1n)];
    return from !== undefined && from.txid < maxTxid;
  };
  const merged = files
    .filter((file) => file.level > 0 && file.level < SNAPSHOT_LEVEL && isReached(file))
    .sort(byStart);
  let next = 0;
  let mergedTo = 0n;
  return [...missed].sort(byStart).filter((file) => {
    for (; next < merged.length && merged[next].minTxid <= file.minTxid; next++) {
      if (merged[next].maxTxid > mergedTo) mergedTo = merged[next].maxTxid;
    }
    const isRetired = file.level === 0 && file.maxTxid <= mergedTo;
    return !isRetired && !reached.has(file.maxTxid);
  });
}

function byStart(a: LtxFileInfo, b: LtxFileInfo): number {
  return a.minTxid < b.minTxid ? -1 : a.minTxid > b.minTxid ? 1 : 0;
}

/** Every state that can be reached from `have`, itself included, ascending, each by its cheapest path. */
function cheapestSteps(files: readonly LtxFileInfo[], have: bigint): Step[] {
  const byEnd = files
    .filter((file) => file.maxTxid > have)
    .sort((a, b) => (a.maxTxid < b.maxTxid ? -1 : a.maxTxid > b.maxTxid ? 1 : 0));
  const start: Step = { txid: have, bytes: 0, fileCount: 0, file: undefined, from: undefined };
  const steps = [start];
  // The states worth starting a file from: ascending in TXID and in cost, for one that is both lower and dearer than
  // another never helps. The cheapest at or above min-1 is then the first at or above it.
  const frontier = [start];
  for (let i = 0; i < byEnd.length; ) {
    const txid = byEnd[i].maxTxid;
    let best: Step | undefined;
    for (; i < byEnd.length && byEnd[i].maxTxid === txid; i++) {
      const file = byEnd[i];
      const from = frontier[firstAtOrAbove(frontier, file.minTxid - 1n)];
      if (from === undefined) continue;
      const step: Step = { txid, bytes: from.bytes + file.size, fileCount: from.fileCount + 1, file, from };
      if (best === undefined || isCheaper(step, best)) best = step;
    }
    if (best === undefined) continue;
    steps.push(best);
    while (frontier.length > 0 && !isCheaper(frontier[frontier.length - 1], best)) frontier.pop();
    frontier.push(best);
  }
  return steps;
}

function firstAtOrAbove(steps: readonly Step[], txid: bigint): number {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (steps[middle].txid < txid) low = middle + 1;
    else high = middle;
  }
  return low;
}

function isCheaper(a: Step, b: Step): boolean {
  return a.bytes < b.bytes || (a.bytes === b.bytes && a.fileCount < b.fileCount);
}

function pathTo(step: Step): LtxFileInfo[] {
  const path: LtxFileInfo[] = [];
  for (let at: Step | undefined = step; at?.file !== undefined; at = at.from) path.push(at.file);
  return path.reverse();
}

/** Why a wish cannot be met whose files lead so far. */
function notFound(
  files: readonly LtxFileInfo[],
  wish: RestoreWish,
  have: bigint,
  { last, missed }: Reach,
): JetliteError {
  const reachable = cheapestSteps(files, have).filter((step) => step.file !== undefined);
  if (reachable.length === 0)
    return new JetliteError('NOT_FOUND', describeHole(have, files), { hint: HOLE_HINT });
  const oldest = describeStep(reachable[0]);
  const newest = describeStep(reachable[reachable.length - 1]);
  const hint =
    reachable.length === 1
      ? `The only state that can be restored is ${oldest}.`
      : `${reachable.length} states can be restored, from ${oldest} to ${newest}.`;
  if (wish.kind === 'txid') {
    const above = firstAtOrAbove(reachable, wish.txid);
    const near = describeNearest(reachable[above - 1], reachable[above]);
    const message = `TXID ${formatTxid(wish.txid)} cannot be restored: ${near}`;
    return new JetliteError('NOT_FOUND', message, { hint });
  }
  if (wish.kind === 'timestamp' && missed.length === 0) {
    const message = `nothing in the replica is as old as ${formatTime(wish.timestampMs)}: the oldest state is ${oldest}`;
    return new JetliteError('NOT_FOUND', message, { hint });
  }
  const hole = describeHole(last.txid, missed);
  if (wish.kind === 'newest') return new JetliteError('NOT_FOUND', hole, { hint });
  const near = describeNearest(
    last.txid > 0n ? last : undefined,
    reachable[firstAtOrAbove(reachable, missed[0].maxTxid)],
  );
  return new JetliteError('NOT_FOUND', near === '' ? hole : `${hole}; ${near}`, { hint });
}

function describeNearest(below: Step | undefined, above: Step | undefined): string {
  const words: string[] = [];
  if (below !== undefined) words.push(`the nearest below is ${describeStep(below)}`);
  if (above !== undefined) words.push(`the nearest above is ${describeStep(above)}`);
  return words.join(', ');
}

const HOLE_HINT =
  'Nothing can be restored from this replica. Back the database up to a new folder, bucket or prefix.';

/** What is missing after state `end`; `beyond` holds files beyond it. */
function describeHole(end: bigint, beyond: readonly LtxFileInfo[]): string {
  const next = beyond
    .filter(({ maxTxid }) => maxTxid > end)
    .reduce<LtxFileInfo | undefined>((a, b) => (a === undefined || b.minTxid < a.minTxid ? b : a), undefined);
  const after = next === undefined ? 'there is no file' : `the next file is ${ltxPath(next)}`;
  return end === 0n
    ? `there is no snapshot to begin with: expected a file that begins at TXID ${formatTxid(1n)}, but ${after}`
    : `the chain of files breaks after TXID ${formatTxid(end)}: expected one that goes on at ${formatTxid(end + 1n)}, but ${after}`;
}

function describeStep(step: Step): string {
  const time = step.file === undefined ? '' : ` (${formatTime(step.file.timestampMs)})`;
  return `${formatTxid(step.txid)}${time}`;
}

/** A listing may hold any number as a file's time. */
function formatTime(ms: number): string {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : 'at an impossible time';
}
