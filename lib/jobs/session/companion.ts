/**
 * Work that goes on beside the capture loop of one database: merging, snapshots, retention, audits.
 *
 * It begins when it is known where the replica stands and ends before the job does. It must never make a put wait for
 * long, and it bears its own troubles: only what must end the whole job (another writer, say) goes to `fail`.
 */

import type { Capture } from '../../capture/capture.js';
import type { ResumeState } from '../../capture/resume-state.js';
import type { Replica } from '../../replica/replica.js';
import type { DamagedFiles } from './damaged-files.js';
import type { FrozenState } from './frozen-states.js';
import type { ReplicateEvent } from './replicate-event.js';
import type { ReplicateOptions } from './replicate-options.js';
import type { Spool } from './spool.js';
import type { Uploader } from './uploader.js';

/** What a companion may see and use of the job. */
export interface SessionParts {
  readonly options: ReplicateOptions;
  readonly replica: Replica;
  readonly capture: Capture;
  readonly state: ResumeState;
  /** Says what became durable. */
  readonly uploader: Uploader;
  /** Files that the replica got a short while ago can be read here again. */
  readonly spool: Spool;
  /** The source's state at the next TXID that is sealed, to be read while capture goes on; undefined if there is none. */
  freeze(signal: AbortSignal): Promise<FrozenState | undefined>;
  /** What reading the replica has shown, which its metadata does not. */
  readonly damaged: DamagedFiles;
  /** The replica had lost something at the start: the first batch holds the whole database. */
  readonly isBegunAnew: boolean;
  /** Fires when what hangs must be given up. */
  readonly interrupt: AbortSignal;
  emit(event: ReplicateEvent): void;
  /** Ends the job with this error. */
  fail(error: unknown): void;
}

export interface Companion {
  /** Begins nothing new and resolves when what was under way has ended. Never rejects. */
  stop(): Promise<void>;
}

/** Starts one; must not wait for the replica. */
export type StartCompanion = (session: SessionParts) => Companion;
