/** What following is told, what it tells meanwhile and in the end. */

import type { Replica } from '../../replica/replica.js';
import type { OnProgress } from '../rebuild/rebuild.js';
import type { WalBounds } from './bounded-wal.js';

export interface FollowOptions extends WalBounds {
  readonly replica: Replica;
  /** Path of the copy. */
  readonly output: string;
  /** Replace what stands at the output, unless it is a copy of this replica that can be gone on with. */
  readonly force?: boolean | undefined;
  /**
   * Permissions of the copy, such as 0o644; default: private, or as they are. Whoever may read the copy may read its `-wal`,
   * and read and write its `-shm`.
   */
  readonly mode?: number | undefined;
  /** Files fetched at a time; default 8. */
  readonly parallelism?: number | undefined;
  /** What SQLite checks before a new copy appears; default none. */
  readonly integrityCheck?: 'none' | 'quick' | 'full' | undefined;
  /** The replica is listed at least this often, whether it told of something new or not; default 30 s. */
  readonly listIntervalMs?: number | undefined;
  /** Firing it ends the job, which then returns. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  readonly onEvent?: ((event: FollowEvent) => void) | undefined;
}

export interface FollowEvent {
  /**
   * `following`: the copy can be read. `applied`: it stands at a newer state. `waiting`: the replica cannot be followed just
   * now, or the disk is full. `back`: it can again. `damaged`: a file of it is, and others led around that. `mending`: the WAL is not
   * as it was left, the whole database goes in again. `checkpoint`: the WAL was emptied. `full`: it has grown to its limit. `unguarded`: there is no SQLite at hand.
   */
  readonly type:
    | 'following'
    | 'applied'
    | 'waiting'
    | 'back'
    | 'damaged'
    | 'mending'
    | 'checkpoint'
    | 'full'
    | 'unguarded';
  readonly level: 'debug' | 'info' | 'warn';
  readonly message: string;
  readonly txid: bigint;
}

export interface FollowResult {
  readonly output: string;
  readonly txid: bigint;
  /** When that state was captured, milliseconds since the epoch. */
  readonly timestampMs: number;
  /** Whether the copy was made by this run. */
  readonly restored: boolean;
  /** Commits added to the copy, and their pages. */
  readonly batches: number;
  readonly pages: number;
}
