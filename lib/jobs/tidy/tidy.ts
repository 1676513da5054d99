/**
 * One round of what keeps a replica small and quick to restore: merges that are due, a snapshot if one is, then removing
 * what nothing promised needs, and now and then what removing itself left behind. Under the lease, with the replica alone.
 */

import { formatTxid } from '../../ltx/header.js';
import type { LtxFileInfo, Replica, SweepOptions, Swept } from '../../replica/replica.js';
import { type CompactEvent, compact } from './compact.js';
import { storedTimes } from './file-times.js';
import { holdLease, type Lease } from './lease.js';
import { isSnapshotDue, nextMerge } from './levels.js';
import { planRetention, type RetentionSettings, retain } from './retain.js';

/** When merged levels are made, and how long what is kept. Times in ms. */
export interface LevelSettings extends RetentionSettings {
  /** Intervals of level 1, 2, …, ascending; at most 8. */
  readonly levelIntervalsMs: readonly number[];
  /** A snapshot of the whole database is made when the last one is so old. */
  readonly snapshotIntervalMs: number;
}

export const DEFAULT_LEVELS: LevelSettings = {
  levelIntervalsMs: [30_000, 300_000, 3_600_000],
  snapshotIntervalMs: 86_400_000,
  snapshotRetentionMs: 86_400_000,
  level0RetentionMs: 300_000,
};

/** The settings of merging and removing beside a replication. What is left out is as in DEFAULT_LEVELS. */
export interface UpkeepSettings extends Partial<LevelSettings> {
  /** False: files are merged, but never removed. */
  readonly retention?: boolean;
}

export type TidyEvent =
  | CompactEvent
  | {
      readonly type: 'snapshot';
      readonly level: 'debug';
      readonly message: string;
      readonly file: LtxFileInfo;
    }
  | { readonly type: 'removed'; readonly level: 'debug'; readonly message: string; readonly count: number }
  | { readonly type: 'swept'; readonly level: 'debug' | 'warn'; readonly message: string }
  | { readonly type: 'stuck'; readonly level: 'warn'; readonly message: string };

export interface TidyOptions {
  readonly settings?: LevelSettings;
  /** `due` (the default): a snapshot by merging when it is time; `now`: in any case; `none`. */
  readonly snapshot?: 'due' | 'now' | 'none';
  /** Puts the snapshot that is due in another way than by merging; undefined if it could not. */
  readonly putSnapshot?: (lease: Lease) => Promise<LtxFileInfo | undefined>;
  /** Remove what retention lets go; default true. */
  readonly retain?: boolean;
  /** In the end, sweep what nobody can see, where the replica's home is left any (Replica.sweep). */
  readonly sweep?: SweepOptions | boolean;
  /** Damaged files found so far (by versionKey); those found now are added. */
  readonly damaged?: Set<string>;
  /** The present, ms since the epoch. */
  readonly nowMs?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: (event: TidyEvent) => void;
}

export type TidyResult =
  | {
      readonly kind: 'done';
      /** Files made, in this order. */
      readonly merged: readonly LtxFileInfo[];
      readonly removed: readonly LtxFileInfo[];
      /** What keeps levels from going on, or files from being removed. */
      readonly stuck: readonly string[];
      readonly swept?: Swept;
    }
  /** Another program is at it; nothing was done. */
  | { readonly kind: 'busy'; readonly holder: string };

/** Throws LeaseLostError if another took the lease meanwhile, ABORTED, REPLICA. What was done until then stays. */
export async function tidy(replica: Replica, options: TidyOptions = {}): Promise<TidyResult> {
  const isSweepDue = replica.sweep !== undefined && options.sweep !== undefined && options.sweep !== false;
  if (!isSweepDue && !(await isDue(replica, options))) {
    return { kind: 'done', merged: [], removed: [], stuck: [] };
  }
  const leased = await holdLease(replica, (lease) => tidyUnderLease(replica, lease, options), {
    signal: options.signal,
  });
  return leased.kind === 'busy' ? leased : leased.value;
}

/** Whether there is anything to do, so that the lease is only taken when there is. */
async function isDue(replica: Replica, options: TidyOptions): Promise<boolean> {
  const { settings = DEFAULT_LEVELS, snapshot = 'due', nowMs = Date.now(), damaged } = options;
  const { levelIntervalsMs, snapshotIntervalMs } = settings;
  const files = await replica.list();
  const stored = await storedTimes(replica, files, nowMs);
  const force = snapshot === 'now';
  if (snapshot !== 'none' && isSnapshotDue(files, snapshotIntervalMs, nowMs, { force, stored })) return true;
  const isBehind = (ms: number, i: number): boolean => {
    const next = nextMerge(files, i + 1, ms, nowMs, damaged);
    return !('kind' in next) || next.kind === 'hole';
  };
  if (levelIntervalsMs.some(isBehind)) return true;
  return options.retain !== false && planRetention(files, settings, nowMs, stored).remove.length > 0;
}

async function tidyUnderLease(replica: Replica, lease: Lease, options: TidyOptions): Promise<TidyResult> {
  const done = await tidyFiles(replica, lease, options);
  const swept = await sweep(replica, lease, options);
  return swept === undefined ? done : { ...done, swept };
}

async function sweep(
  replica: Replica,
  { version, signal }: Lease,
  { sweep: wish = false, onEvent }: TidyOptions,
): Promise<Swept | undefined> {
  if (wish === false) return undefined;
  const swept = await replica.sweep?.(version, { ...(wish === true ? {} : wish), signal });
  if (swept === undefined) return undefined;
  const { marks, uploads, obstacle } = swept;
  if (marks > 0 || uploads > 0) {
    const message = `swept ${marks} marks of removed files and ${uploads} uploads that were cut off`;
    onEvent?.({ type: 'swept', level: 'debug', message });
  }
  if (obstacle !== undefined) {
    const message = `what uploads left behind that were cut off stays in ${replica.url}: ${obstacle}`;
    onEvent?.({ type: 'swept', level: 'warn', message });
  }
  return swept;
}

async function tidyFiles(
  replica: Replica,
  lease: Lease,
  options: TidyOptions,
): Promise<Extract<TidyResult, { kind: 'done' }>> {
  const { settings = DEFAULT_LEVELS, snapshot = 'due', nowMs, damaged, onEvent } = options;
  const force = snapshot === 'now';
  const intervalMs = settings.snapshotIntervalMs;
  let put: LtxFileInfo | undefined;
  if (snapshot !== 'none' && options.putSnapshot !== undefined) {
    const files = await replica.list();
    const presentMs = nowMs ?? Date.now();
    const stored = await storedTimes(replica, files, presentMs);
    const isDue = isSnapshotDue(files, intervalMs, presentMs, { force, stored });
    put = isDue ? await options.putSnapshot(lease) : undefined;
  }
  if (put !== undefined) {
    const message = `put a snapshot of TXID ${formatTxid(put.maxTxid)}, ${put.size} bytes`;
    onEvent?.({ type: 'snapshot', level: 'debug', message, file: put });
  }
  const compacted = await compact(replica, lease, {
    intervalsMs: settings.levelIntervalsMs,
    snapshot: snapshot === 'none' || put !== undefined ? undefined : { intervalMs, force },
    ...(damaged && { damaged }),
    ...(nowMs !== undefined && { nowMs }),
    ...(onEvent && { onEvent }),
  });
  const { stuck } = compacted;
  const merged = put === undefined ? compacted.merged : [put, ...compacted.merged];
  if (options.retain === false) return { kind: 'done', merged, removed: [], stuck };
  const clock = nowMs === undefined ? settings : { ...settings, nowMs };
  const { removed, refused } = await retain(replica, lease, clock);
  if (removed.length > 0) {
    const message = `removed ${removed.length} files that nothing needs any more`;
    onEvent?.({ type: 'removed', level: 'debug', message, count: removed.length });
  }
  if (refused === undefined) return { kind: 'done', merged, removed, stuck };
  const message = `no file was removed: ${refused}`;
  onEvent?.({ type: 'stuck', level: 'warn', message });
  return { kind: 'done', merged, removed, stuck: [...stuck, message] };
}
