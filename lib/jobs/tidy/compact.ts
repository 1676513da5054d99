/**
 * Brings the merged levels of a replica up to date, and makes a snapshot when one is due: from what the replica holds, so
 * that it can be done from anywhere.
 *
 * 1. A merged file appears at once, whole, and only while the lease stands. Nothing is removed here: killed at any
 *    instant, the replica has lost nothing, and the next run goes on.
 * 2. A damaged file is told of once and gone around if other files lead to the same state. Where none do, its level
 *    stops; the other levels go on.
 */

import { ConflictError, FormatError, JetliteError, LeaseLostError } from '../../errors.js';
import { ltxPath, SNAPSHOT_LEVEL, versionKey } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { fileNamedBy } from '../rebuild/damage.js';
import { storedTimes } from './file-times.js';
import type { Lease } from './lease.js';
import { isSnapshotDue, type Merge, type NoMerge, nextMerge, snapshotMerge } from './levels.js';
import { mergeable, mergeFiles } from './merge-files.js';

/** What merging tells of. */
export type CompactEvent =
  | {
      readonly type: 'merged';
      readonly level: 'debug';
      readonly message: string;
      readonly file: LtxFileInfo;
      /** How many files became it. */
      readonly count: number;
    }
  | { readonly type: 'damaged' | 'hole'; readonly level: 'warn'; readonly message: string };

export interface CompactOptions {
  /** Intervals of level 1, 2, …, in ms, ascending. */
  readonly intervalsMs: readonly number[];
  /** A snapshot by merging: when the last one is so old, ms, or in any case. Left out, none is made. */
  readonly snapshot?: { readonly intervalMs: number; readonly force?: boolean } | undefined;
  /** Damaged files found so far (by versionKey); those found now are added. */
  readonly damaged?: Set<string>;
  /** The present, ms since the epoch. */
  readonly nowMs?: number;
  readonly onEvent?: (event: CompactEvent) => void;
}

export interface CompactResult {
  /** The files made, in this order. */
  readonly merged: readonly LtxFileInfo[];
  /** What keeps levels from going on; one message for each. */
  readonly stuck: readonly string[];
}

/** How often a listing that turns out to be old is taken anew. */
const TRIES = 3;

/** Throws LeaseLostError, ABORTED, REPLICA. What was merged until then stays. */
export async function compact(
  replica: Replica,
  lease: Lease,
  options: CompactOptions,
): Promise<CompactResult> {
  return new Compaction(replica, lease, options).run();
}

class Compaction {
  readonly #replica: Replica;
  readonly #lease: Lease;
  readonly #options: CompactOptions;
  readonly #damaged: Set<string>;
  readonly #merged: LtxFileInfo[] = [];
  readonly #stuck: string[] = [];
  #files: LtxFileInfo[] = [];

  constructor(replica: Replica, lease: Lease, options: CompactOptions) {
    this.#replica = replica;
    this.#lease = lease;
    this.#options = options;
    this.#damaged = options.damaged ?? new Set();
  }

  async run(): Promise<CompactResult> {
    const { intervalsMs, snapshot, nowMs = Date.now() } = this.#options;
    this.#files = await this.#replica.list();
    const stored = await storedTimes(this.#replica, this.#files, nowMs);
    const dueSnapshot = (): Merge | undefined => {
      if (snapshot === undefined) return undefined;
      const { intervalMs, force = false } = snapshot;
      const isDue = isSnapshotDue(this.#files, intervalMs, nowMs, { force, stored });
      return isDue ? snapshotMerge(this.#files, this.#damaged) : undefined;
    };
    // With a snapshot there, level 1 need not begin with the whole database.
    if (!this.#files.some(({ level }) => level === SNAPSHOT_LEVEL)) await this.#goOn(dueSnapshot, 1);
    for (const [i, intervalMs] of intervalsMs.entries()) {
      await this.#goOn(() => nextMerge(this.#files, i + 1, intervalMs, nowMs, this.#damaged));
    }
    // Later ones after the levels, which make the way short.
    await this.#goOn(dueSnapshot);
    return { merged: this.#merged, stuck: this.#stuck };
  }

  /** Merges until there is nothing more to merge, or nothing leads on, or so many files were made. */
  async #goOn(next: () => Merge | NoMerge | undefined, most = Number.POSITIVE_INFINITY): Promise<void> {
    const made = this.#merged.length;
    for (let tries = 1; this.#merged.length - made < most; ) {
      try {
        const merge = next();
        if (merge === undefined) return;
        if ('kind' in merge) {
          if (merge.kind === 'hole') this.#stop('hole', merge.message);
          return;
        }
        await this.#merge(merge);
        tries = 1;
      } catch (error) {
        if (error instanceof FormatError) {
          if (!this.#exclude(error)) return this.#stop('damaged', error.message);
        } else if (error instanceof JetliteError && error.code === 'NOT_FOUND') {
          // The listing is old, or there is no way at all.
          if (tries++ === TRIES) return this.#stop('hole', error.message);
          this.#files = await this.#replica.list();
        } else if (error instanceof ConflictError && !(error instanceof LeaseLostError)) {
          if (tries++ === TRIES) throw error;
          this.#files = await this.#replica.list();
        } else throw error;
      }
    }
  }

  async #merge({ level, minTxid, files }: Merge): Promise<void> {
    const taken = files.slice(0, mergeable(files));
    const file = await mergeFiles(this.#replica, taken, { level, minTxid }, this.#lease);
    this.#files.push(file);
    this.#merged.push(file);
    this.#options.onEvent?.({
      type: 'merged',
      level: 'debug',
      message: `merged ${taken.length} files into ${ltxPath(file)}, ${file.size} bytes`,
      file,
      count: taken.length,
    });
  }

  /** Notes the file that the error names; false if it is none of the replica's, or noted already. */
  #exclude(error: FormatError): boolean {
    const file = fileNamedBy(error, this.#files);
    if (file === undefined || this.#damaged.has(versionKey(file))) return false;
    this.#damaged.add(versionKey(file));
    const message = `${error.message}; merging goes around it if it can`;
    this.#options.onEvent?.({ type: 'damaged', level: 'warn', message });
    return true;
  }

  #stop(type: 'damaged' | 'hole', message: string): void {
    this.#stuck.push(message);
    this.#options.onEvent?.({ type, level: 'warn', message });
  }
}
