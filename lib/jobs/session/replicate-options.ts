/** What a replication is asked to do, and what it did. */

import type { Replica } from '../../replica/replica.js';
import type { UpkeepSettings } from '../tidy/tidy.js';
import type { ReplicateEvent } from './replicate-event.js';

export interface ReplicateOptions {
  /** Path of the database. It may be created later. */
  readonly database: string;
  readonly replica: Replica;
  /** Folder for what must outlive the process; by default `.<name>-jetlite` beside the database. */
  readonly stateDir?: string;
  /** Longest time commits gather while an earlier batch is still being put, ms. */
  readonly syncIntervalMs?: number;
  /** Largest size of what waits on disk for a replica that is away, bytes; default 1 GiB. */
  readonly spoolMaxBytes?: number;
  /** End as soon as the replica is up to date. */
  readonly once?: boolean;
  /** Merged levels, snapshots and retention, which go on beside; not with `once`. False: files are only added. */
  readonly levels?: UpkeepSettings | false;
  /** With `once`: in the end, make a snapshot of the newest state if there is none. */
  readonly forceSnapshot?: boolean;
  /** With `once`: in the end, remove what retention lets go. */
  readonly enforceRetention?: boolean;
  /** Go on with the replica also where nothing in it is this database's. */
  readonly allowOtherDatabase?: boolean;
  /** False: look at the files by the clock only, every `pollIntervalMs`. */
  readonly fileEvents?: boolean;
  /** How often to ask the replica whether it still has what it acknowledged, ms. Default 600,000. */
  readonly auditIntervalMs?: number;
  /** How long uploading may go on after the signal to stop, ms; default 8,000. What is left then waits on disk. */
  readonly stopTimeoutMs?: number;
  /** How often to look when no file event comes, ms. */
  readonly pollIntervalMs?: number;
  /** Firing it ends the job after what was committed by then is durable. A second reason to stop is the caller's. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ReplicateEvent) => void;
}

export interface ReplicateResult {
  /** The state the replica is at; 0 if it is empty. */
  readonly txid: bigint;
  readonly commits: number;
  /** LTX files put. */
  readonly files: number;
  readonly bytes: number;
  /** Images that took the place of following, the first one included. */
  readonly images: number;
  /** Restarts of the WAL crossed with proof. */
  readonly restarts: number;
}
