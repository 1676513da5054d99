/**
 * Where a database and its replica stand. Nothing is changed, no lock is taken, and nothing of the files' content is
 * read: a listing of the replica, the times and sizes of the database's files, and what capture left in the state folder.
 */

import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ResumeState } from '../capture/resume-state.js';
import { SNAPSHOT_LEVEL } from '../replica/names.js';
import type { Replica } from '../replica/replica.js';
import { replicaStateFolder, stateFolder } from './state-folder.js';

export interface StatusOptions {
  readonly replica: Replica;
  /** Path of the database that the replica belongs to, if that is known. */
  readonly database?: string | undefined;
  readonly stateDir?: string | undefined;
}

export interface LevelStatus {
  readonly level: number;
  readonly files: number;
  readonly bytes: number;
}

export interface Status {
  /** Undefined if it is unknown or not there. */
  readonly database:
    | {
        readonly path: string;
        readonly bytes: number;
        readonly walBytes: number;
        /** When one of its files last changed, ms since the epoch. */
        readonly changedMs: number;
        /** The newest TXID that this machine gave to captured commits; undefined where it kept no state. */
        readonly txid: bigint | undefined;
      }
    | undefined;
  readonly replica: {
    readonly url: string;
    /** The newest state; 0 if it is empty. */
    readonly txid: bigint;
    /** Time of that state, ms since the epoch; 0 if it is empty. */
    readonly timestampMs: number;
    readonly files: number;
    readonly bytes: number;
    /** Levels that have files, ascending. */
    readonly levels: readonly LevelStatus[];
    /** Time of the newest full snapshot at level 9, ms since the epoch; undefined if there is none. */
    readonly snapshotMs: number | undefined;
  };
  /**
   * By how much the replica's newest state is older than the database's last change, ms; undefined without a database.
   * An upper bound: a checkpoint changes the database's files, too, and commits nothing.
   */
  readonly lagMs: number | undefined;
}

/** Changes that come together are looked at together. */
const GATHER_MS = 100;

/** @throws JetliteError REPLICA if the replica cannot be asked */
export async function status(options: StatusOptions): Promise<Status> {
  const { replica, database } = options;
  // The database first: what is replicated meanwhile must not look like a lag.
  const source = database === undefined ? undefined : await lookAtDatabase(database, options);
  const files = await replica.list();
  const levels = new Map<number, { level: number; files: number; bytes: number }>();
  let [txid, timestampMs, bytes] = [0n, 0, 0];
  let snapshotMs: number | undefined;
  for (const file of files) {
    const level = levels.get(file.level) ?? { level: file.level, files: 0, bytes: 0 };
    level.files++;
    level.bytes += file.size;
    bytes += file.size;
    levels.set(file.level, level);
    if (file.maxTxid > txid) txid = file.maxTxid;
    timestampMs = Math.max(timestampMs, file.timestampMs);
    if (file.level === SNAPSHOT_LEVEL) snapshotMs = Math.max(snapshotMs ?? 0, file.timestampMs);
  }
  return {
    database: source,
    replica: {
      url: replica.url,
      txid,
      timestampMs,
      files: files.length,
      bytes,
      levels: [...levels.values()].sort((a, b) => a.level - b.level),
      snapshotMs,
    },
    lagMs: source === undefined ? undefined : Math.max(0, source.changedMs - timestampMs),
  };
}

/** The status now, and again whenever the replica says that something changed, until the signal fires. */
export async function* watchStatus(options: StatusOptions, signal: AbortSignal): AsyncGenerator<Status> {
  const changes = options.replica.watch(signal)[Symbol.asyncIterator]();
  let change = changes.next();
  for (;;) {
    // Should the watch fail meanwhile, it is heard of below.
    change.catch(() => {});
    yield await status(options);
    if ((await change).done || signal.aborted) return;
    await delay(GATHER_MS, undefined, { signal }).catch(() => {});
    // What came meanwhile is in the status that follows.
    for (change = changes.next(); await isThere(change); change = changes.next());
  }
}

/** True if a change has come already; the end of all changes is none. */
async function isThere(change: Promise<IteratorResult<unknown>>): Promise<boolean> {
  const none = delay(0, undefined);
  const found = await Promise.race([change, none]);
  return found !== undefined && !found.done;
}

async function lookAtDatabase(path: string, options: StatusOptions): Promise<Status['database']> {
  const [main, wal] = await Promise.all([fileStat(path), fileStat(`${path}-wal`)]);
  if (main === undefined) return undefined;
  const folder = await replicaStateFolder(stateFolder(path, options.stateDir), options.replica.url);
  const points = new ResumeState(folder, () => {}).readPoints();
  return {
    path,
    bytes: main.size,
    walBytes: wal?.size ?? 0,
    changedMs: Math.max(main.mtimeMs, wal !== undefined && wal.size > 0 ? wal.mtimeMs : 0),
    txid: points.reduce<bigint | undefined>(
      (highest, { txid }) => (highest === undefined || txid > highest ? txid : highest),
      undefined,
    ),
  };
}

async function fileStat(path: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  return stat(path).catch(() => undefined);
}
