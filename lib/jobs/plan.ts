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
 *    or earlier are used, since any other holds something later.
 * 5. A wish is fulfilled exactly or refused. Where the chain has a hole, an older state is never returned instead.
 */

import { JetliteError } from '../errors.js';
import { formatTxid } from '../ltx/header.js';
import { ltxPath } from '../replica/names.js';
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
  const usable = files.filter((file) => isWanted(file, wish));
  const target = wish.kind === 'txid' ? wish.txid : highestTxid(usable, have);
  const steps = cheapestSteps(usable, have);
  const last = steps[steps.length - 1];
  if (last.txid !== target || target === 0n) throw notFound(files, usable, wish, have);
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

function isWanted(file: LtxFileInfo, wish: RestoreWish): boolean {
  if (wish.kind === 'txid') return file.maxTxid <= wish.txid;
  return wish.kind === 'newest' || file.timestampMs <= wish.timestampMs;
}

function highestTxid(files: readonly LtxFileInfo[], have: bigint): bigint {
  let highest = have;
  for (const file of files) if (file.maxTxid > highest) highest = file.maxTxid;
  return highest;
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

function notFound(
  files: readonly LtxFileInfo[],
  usable: readonly LtxFileInfo[],
  wish: RestoreWish,
  have: bigint,
): JetliteError {
  const reachable = cheapestSteps(files, have).filter((step) => step.file !== undefined);
  if (reachable.length === 0)
    return new JetliteError('NOT_FOUND', describeHole(files, have), { hint: HOLE_HINT });
  const oldest = describeStep(reachable[0]);
  const newest = describeStep(reachable[reachable.length - 1]);
  const hint =
    reachable.length === 1
      ? `The only state that can be restored is ${oldest}.`
      : `${reachable.length} states can be restored, from ${oldest} to ${newest}.`;
  if (wish.kind === 'txid') {
    const above = firstAtOrAbove(reachable, wish.txid);
    const near = [reachable[above - 1], reachable[above]].filter((step) => step !== undefined);
    const words = near.map((step) => `${step.txid < wish.txid ? 'below' : 'above'} is ${describeStep(step)}`);
    const message = `TXID ${formatTxid(wish.txid)} cannot be restored: the nearest ${words.join(', the nearest ')}`;
    return new JetliteError('NOT_FOUND', message, { hint });
  }
  if (wish.kind === 'timestamp' && usable.length === 0) {
    const message = `nothing in the replica is as old as ${formatTime(wish.timestampMs)}: the oldest state is ${oldest}`;
    return new JetliteError('NOT_FOUND', message, { hint });
  }
  return new JetliteError('NOT_FOUND', describeHole(usable, have), { hint });
}

const HOLE_HINT =
  'Nothing can be restored from this replica. Back the database up to a new folder, bucket or prefix.';

/** Why `files` do not lead from `have` to their highest TXID. */
function describeHole(files: readonly LtxFileInfo[], have: bigint): string {
  const steps = cheapestSteps(files, have);
  const end = steps[steps.length - 1].txid;
  let next: LtxFileInfo | undefined;
  for (const file of files) {
    if (file.maxTxid > end && (next === undefined || file.minTxid < next.minTxid)) next = file;
  }
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
