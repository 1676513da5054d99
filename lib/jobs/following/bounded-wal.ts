/**
 * Keeps the WAL of a live copy bounded, and its readers from removing it, where SQLite is at hand: the guard's read
 * transaction moves on with the commits, and the WAL is emptied into the database when it has grown.
 *
 * A checkpoint waits for readers, and so does the next batch while one is tried: only for a moment, and again later. At
 * its limit the WAL takes nothing more until a reader has let go.
 */

import { performance } from 'node:perf_hooks';
import { Guard, GuardFailed, hasSqlite } from '../../copy/guard.js';
import type { LiveCopy } from '../../copy/live-copy.js';
import { JetliteError } from '../../errors.js';
import { pause } from '../session/attempts.js';

export interface WalBounds {
  /** The WAL is emptied when it has grown to this size, bytes; default 4 MiB. */
  readonly checkpointBytes?: number | undefined;
  /** It may grow to this size, bytes; default 1 GiB. */
  readonly maxWalBytes?: number | undefined;
}

export interface WalEvent {
  readonly type: 'checkpoint' | 'full' | 'unguarded';
  readonly level: 'debug' | 'warn';
  readonly message: string;
}

const DEFAULT_CHECKPOINT_BYTES = 4 * 1024 * 1024;
const DEFAULT_MAX_WAL_BYTES = 1024 * 1024 * 1024;
/** How long readers may keep a checkpoint, and with it the next batch, waiting; and the time between two tries. */
const CHECKPOINT_PATIENCE_MS = 200;
const CHECKPOINT_AGAIN_MS = 1000;
const TURN_MS = 1000;

export class BoundedWal {
  readonly #copy: LiveCopy;
  readonly #bounds: WalBounds;
  readonly #signal: AbortSignal;
  readonly #tell: (event: WalEvent) => void;
  readonly #guard: Guard | undefined;
  #turnedAt = Number.NEGATIVE_INFINITY;
  #checkpointAt = Number.NEGATIVE_INFINITY;
  #isFull = false;
  /** Whether a guard has, which was told, and none has answered since. */
  #hasFailed = false;
  /** The files that the guard has open. */
  #pair: number;

  /** `signal`: ends all waiting. */
  constructor(copy: LiveCopy, bounds: WalBounds, signal: AbortSignal, tell: (event: WalEvent) => void) {
    this.#copy = copy;
    this.#bounds = bounds;
    this.#signal = signal;
    this.#tell = tell;
    this.#pair = copy.pair;
    this.#guard = hasSqlite() ? new Guard(copy.path) : undefined;
  }

  /** Says so where there is no SQLite to guard the copy with. */
  begin(): void {
    if (this.#guard !== undefined) return;
    const message = `this Node brings no SQLite (22.5 and newer do): the WAL of ${this.#copy.path} is not emptied, and readers must not write`;
    this.#tell({ type: 'unguarded', level: 'warn', message });
  }

  /** To be called between batches: the guard moves on, or the WAL is emptied. */
  async tend(): Promise<void> {
    const copy = this.#copy;
    if (this.#guard === undefined || copy.mustMend) return;
    await this.#renew(this.#guard);
    const isUnguarded = this.#guard.pid === undefined && copy.walSize > 0;
    const now = performance.now();
    const { checkpointBytes = DEFAULT_CHECKPOINT_BYTES } = this.#bounds;
    if (copy.walSize >= checkpointBytes && now - this.#checkpointAt > CHECKPOINT_AGAIN_MS) {
      await this.#checkpoint(this.#guard);
    } else if (now - this.#turnedAt > TURN_MS && (!copy.isSettled || isUnguarded)) {
      this.#turnedAt = now;
      await this.#ask(this.#guard.turn());
      copy.check();
    }
  }

  /**
   * To be called before a batch: resolves when the WAL is below its limit, or the signal fires. Throws OUTPUT if it is not
   * and nothing can be done about it.
   */
  async makeRoom(): Promise<void> {
    const { maxWalBytes = DEFAULT_MAX_WAL_BYTES } = this.#bounds;
    const copy = this.#copy;
    while (copy.walSize >= maxWalBytes && !copy.mustMend && !this.#signal.aborted) {
      if (this.#guard === undefined) {
        throw new JetliteError(
          'OUTPUT',
          `the WAL of ${copy.path} has grown to its limit of ${maxWalBytes} bytes`,
          {
            hint: 'Run the follower on Node 22.5 or newer, which empties it; or end the readers and restore anew with --force.',
          },
        );
      }
      if (await this.#checkpoint(this.#guard)) return;
      if (!this.#isFull) {
        this.#isFull = true;
        const message = `the WAL of ${copy.path} has grown to its limit and waits for a reader that keeps a transaction open`;
        this.#tell({ type: 'full', level: 'warn', message });
      }
      await pause(CHECKPOINT_AGAIN_MS, this.#signal);
    }
  }

  /** Resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    await this.#guard?.stop();
  }

  /** Lets go of files that are not the copy's any more. */
  async #renew(guard: Guard): Promise<void> {
    if (this.#pair === this.#copy.pair) return;
    this.#pair = this.#copy.pair;
    await guard.stop();
    this.#turnedAt = Number.NEGATIVE_INFINITY;
  }

  async #checkpoint(guard: Guard): Promise<boolean> {
    const copy = this.#copy;
    await this.#renew(guard);
    const size = copy.walSize;
    const emptied = (await this.#ask(copy.checkpoint(guard, CHECKPOINT_PATIENCE_MS))) === true;
    this.#checkpointAt = emptied ? Number.NEGATIVE_INFINITY : performance.now();
    if (!copy.mustMend) await this.#ask(guard.turn());
    this.#turnedAt = performance.now();
    if (emptied) {
      this.#isFull = false;
      const message = `emptied the WAL of ${copy.path}, ${size} bytes`;
      this.#tell({ type: 'checkpoint', level: 'debug', message });
    }
    return emptied;
  }

  /** Without its guard the copy can be followed all the same. */
  async #ask<T>(answer: Promise<T>): Promise<T | undefined> {
    try {
      const given = await answer;
      this.#hasFailed = false;
      return given;
    } catch (error) {
      if (!(error instanceof GuardFailed) || this.#signal.aborted) throw error;
      const { message } = error;
      if (!this.#hasFailed) this.#tell({ type: 'unguarded', level: 'warn', message });
      this.#hasFailed = true;
      return undefined;
    }
  }
}
