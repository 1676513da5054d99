/**
 * Following: a restored database that goes on taking in what its replica gets, while others read it.
 *
 * 1. The database is restored whole, once; a copy that stands there from an earlier run is gone on with.
 * 2. The replica's own pushes wake the follower; a listing now and then covers a push that did not arrive.
 * 3. Each batch leads to the newest state that is known. When batches come fast they gather: each costs the readers a
 *    rebuilt index.
 * 4. Whatever the replica does (gone, damaged, a hole) the copy stays at its last whole state and can be read.
 */

import { resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { claim } from '../claim.js';
import { Guard, GuardFailed, hasSqlite } from '../copy/guard.js';
import { LiveCopy } from '../copy/live-copy.js';
import { JetliteError } from '../errors.js';
import { formatTxid } from '../ltx/header.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { applyPlan, expectSameHistory, isOnRecord } from './follow-plan.js';
import { planRestore } from './plan.js';
import { lookAtOutput, outputError } from './rebuild/output.js';
import type { OnProgress } from './rebuild/rebuild.js';
import { restore } from './restore.js';
import { hasCode, pause } from './session/attempts.js';
import { stateFolder } from './state-folder.js';

export interface FollowOptions {
  readonly replica: Replica;
  /** Path of the copy. */
  readonly output: string;
  /** Replace what stands at the output, unless it is a copy of this replica that can be gone on with. */
  readonly force?: boolean | undefined;
  /** Files fetched at a time; default 8. */
  readonly parallelism?: number | undefined;
  /** What SQLite checks before a new copy appears; default none. */
  readonly integrityCheck?: 'none' | 'quick' | 'full' | undefined;
  /** Where SQLite is at hand: the copy's WAL is emptied when it has grown to this size, bytes; default 4 MiB. */
  readonly checkpointBytes?: number | undefined;
  /** The copy's WAL may grow to this size, bytes; default 1 GiB. */
  readonly maxWalBytes?: number | undefined;
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
   * now. `back`: it can again. `mending`: readers removed the WAL, everything since the last checkpoint goes in again.
   * `checkpoint`: the WAL was emptied. `full`: it has grown to its limit. `unguarded`: there is no SQLite at hand.
   */
  readonly type:
    | 'following'
    | 'applied'
    | 'waiting'
    | 'back'
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

const DEFAULT_PARALLELISM = 8;
const DEFAULT_CHECKPOINT_BYTES = 4 * 1024 * 1024;
const DEFAULT_LIST_MS = 30_000;
const DEFAULT_MAX_WAL_BYTES = 1024 * 1024 * 1024;
/** Batches that come faster than this gather. */
const GATHER_MS = 20;
/** How long readers may keep a checkpoint, and with it the next batch, waiting; and the time between two tries. */
const CHECKPOINT_PATIENCE_MS = 200;
const CHECKPOINT_AGAIN_MS = 1000;
const CHECK_FIRST_MS = 1;
const CHECK_LAST_MS = 100;
const CHECK_SETTLED_MS = 1000;
const TURN_MS = 1000;
const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 2000;
/** A listing made while files appear may show a hole once. */
const TELL_AFTER = 2;

/**
 * Restores a database and keeps it up to date until the signal fires. Throws JetliteError as `restore` does while there is no
 * copy yet; later CONFLICT (another program writes the copy, or the replica was begun anew) and OUTPUT.
 */
export async function follow(options: FollowOptions): Promise<FollowResult> {
  const { path } = await lookAtOutput(options.output);
  const release = await claim(
    path,
    () =>
      new JetliteError('OUTPUT', `another process follows at ${path} already`, {
        hint: 'One copy has one follower: end the other, or choose another output path.',
      }),
  );
  try {
    return await followAt(path, options);
  } finally {
    await release();
  }
}

async function followAt(path: string, options: FollowOptions): Promise<FollowResult> {
  const statePath = resolve(stateFolder(path), 'live-copy');
  let restored = false;
  let copy = openCopy(path, statePath, options);
  if (copy === undefined) {
    await restore({
      ...pick(options),
      output: path,
      prepare: (file, { pageSize, txid, timestampMs, pageCount }) => {
        const replica = options.replica.url;
        LiveCopy.prepare(path, file.fd, statePath, { replica, pageSize, txid, timestampMs, pageCount });
      },
    });
    restored = true;
    copy = openCopy(path, statePath, options);
  }
  if (copy === undefined) {
    throw new JetliteError('OUTPUT', `another file has taken the place of the copy ${path}`, {
      hint: 'Choose another output path.',
    });
  }
  const follower = new Follower(copy, options);
  try {
    await follower.run();
  } catch (error) {
    throw outputError(error, path);
  } finally {
    await follower.stop();
    copy.close();
  }
  const { txid, timestampMs } = copy;
  return { output: path, txid, timestampMs, restored, batches: follower.batches, pages: follower.pages };
}

/** With `force` a copy that cannot be gone on with counts as none. */
function openCopy(path: string, statePath: string, { replica, force }: FollowOptions): LiveCopy | undefined {
  try {
    return LiveCopy.open(path, statePath, replica.url);
  } catch (error) {
    if (force && hasCode(error, 'CONFLICT', 'OUTPUT')) return undefined;
    throw outputError(error, path);
  }
}

function pick({ replica, force, parallelism, integrityCheck, signal, onProgress }: FollowOptions) {
  return { replica, force, parallelism, integrityCheck, signal, onProgress };
}

class Follower {
  batches = 0;
  pages = 0;
  readonly #copy: LiveCopy;
  readonly #options: FollowOptions;
  readonly #guard: Guard | undefined;
  readonly #ending = new AbortController();
  readonly #watching: Promise<void>;
  /** Files that the replica told of and that are not in the copy. */
  #heard: LtxFileInfo[] = [];
  #mustList = true;
  #wake = () => {};
  #appliedAt = Number.NEGATIVE_INFINITY;
  #turnedAt = Number.NEGATIVE_INFINITY;
  #listedAt = Number.NEGATIVE_INFINITY;
  #checkpointAt = Number.NEGATIVE_INFINITY;
  #checkMs = CHECK_FIRST_MS;
  #failures = 0;
  #told: string | undefined;
  #isFull = false;

  constructor(copy: LiveCopy, options: FollowOptions) {
    this.#copy = copy;
    this.#options = options;
    this.#guard = hasSqlite() ? new Guard(copy.path) : undefined;
    const end = () => {
      this.#ending.abort();
      this.#wake();
    };
    options.signal?.addEventListener('abort', end, { once: true });
    if (options.signal?.aborted) end();
    this.#watching = this.#watch();
  }

  async run(): Promise<void> {
    const { replica, output } = this.#options;
    if (this.#guard === undefined) {
      const message = `this Node brings no SQLite (22.5 and newer do): the WAL of ${output} is not emptied, and readers must not write`;
      this.#emit('unguarded', 'warn', message);
    }
    const where = `TXID ${formatTxid(this.#copy.txid)}`;
    this.#emit('following', 'info', `${output} follows ${replica.url} from ${where} on`);
    while (!this.#ending.signal.aborted) {
      let wait = this.#nextCheck();
      try {
        this.#copy.check();
        const isNews = this.#copy.mustMend || this.#mustList || this.#heard.length > 0;
        if (isNews) await this.#catchUp();
        await this.#tend();
        this.#succeeded();
        wait = Math.min(wait, this.#nextCheck());
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        wait = this.#failed(error);
      }
      await this.#rest(wait);
    }
  }

  /** Ends what runs beside: nothing of it is left. */
  async stop(): Promise<void> {
    this.#ending.abort();
    this.#wake();
    await this.#guard?.stop();
    await Promise.race([this.#watching, pause(1000, undefined)]);
  }

  async #watch(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        for await (const file of this.#options.replica.watch(signal)) {
          this.#heard.push(file);
          this.#wake();
        }
      } catch {
        // Listing says what is the matter.
      }
      if (signal.aborted) return;
      this.#mustList = true;
      this.#wake();
      await pause(RETRY_FIRST_MS, signal);
    }
  }

  async #catchUp(): Promise<void> {
    const copy = this.#copy;
    const { replica, parallelism = DEFAULT_PARALLELISM } = this.#options;
    const { signal } = this.#ending;
    const gatherMs = this.#appliedAt + GATHER_MS - performance.now();
    if (gatherMs > 0) await pause(gatherMs, signal);
    copy.check();
    const { mustMend } = copy;
    if (mustMend) {
      const message = `the WAL of ${copy.path} was removed or cut by a reader: the whole database goes in again`;
      this.#emit('mending', 'warn', message);
    }
    const plan = mustMend ? await this.#planWhole() : await this.#plan();
    if (plan.files.length > 0) {
      await this.#makeRoom();
      const applied = await applyPlan(copy, plan, replica, parallelism, signal);
      this.batches++;
      this.pages += applied.pages;
      this.#appliedAt = performance.now();
      this.#checkMs = CHECK_FIRST_MS;
      const message = `${copy.path} stands at TXID ${formatTxid(copy.txid)}: ${applied.pages} pages`;
      this.#emit('applied', 'debug', message);
    }
  }

  async #plan() {
    const copy = this.#copy;
    const heard = this.#heard.filter((file) => file.maxTxid > copy.txid);
    // A name of the past that is written now: history may have begun anew.
    const isOld = this.#heard.some((file) => file.level === 0 && file.maxTxid <= copy.txid);
    if (!this.#mustList && !isOld) {
      try {
        const plan = planRestore(heard, { kind: 'newest' }, copy.txid);
        this.#heard = [];
        return plan;
      } catch (error) {
        if (!hasCode(error, 'NOT_FOUND')) throw error;
      }
    }
    const files = await this.#list();
    return planRestore(files, { kind: 'newest' }, isOnRecord(files, copy) ? copy.txid : 0n);
  }

  /** Who removed the WAL may have written, too: no page of the database file is believed. */
  async #planWhole() {
    return planRestore(await this.#list(), { kind: 'newest' });
  }

  async #list(): Promise<LtxFileInfo[]> {
    this.#heard = [];
    this.#mustList = true;
    const files = await this.#options.replica.list();
    this.#mustList = false;
    this.#listedAt = performance.now();
    if (files.length === 0) throw new JetliteError('NOT_FOUND', 'the replica holds no files any more');
    expectSameHistory(files, this.#copy);
    return files;
  }

  /** The guard moves on, the WAL is emptied, a listing falls due. */
  async #tend(): Promise<void> {
    const copy = this.#copy;
    const now = performance.now();
    const { listIntervalMs = DEFAULT_LIST_MS } = this.#options;
    if (now - this.#listedAt > listIntervalMs) this.#mustList = true;
    if (this.#guard === undefined || copy.mustMend) return;
    const { checkpointBytes = DEFAULT_CHECKPOINT_BYTES } = this.#options;
    if (copy.walSize >= checkpointBytes && now - this.#checkpointAt > CHECKPOINT_AGAIN_MS) {
      await this.#checkpoint(this.#guard);
    } else if (now - this.#turnedAt > TURN_MS && !copy.isSettled) {
      this.#turnedAt = now;
      await this.#ask(this.#guard.turn());
      copy.check();
    }
  }

  async #checkpoint(guard: Guard): Promise<boolean> {
    const copy = this.#copy;
    const size = copy.walSize;
    const emptied = (await this.#ask(copy.checkpoint(guard, CHECKPOINT_PATIENCE_MS))) === true;
    this.#checkpointAt = emptied ? Number.NEGATIVE_INFINITY : performance.now();
    if (!copy.mustMend) await this.#ask(guard.turn());
    this.#turnedAt = performance.now();
    if (emptied) {
      this.#isFull = false;
      this.#emit('checkpoint', 'debug', `emptied the WAL of ${copy.path}, ${size} bytes`);
    }
    return emptied;
  }

  /** Without its guard the copy can be followed all the same. */
  async #ask<T>(answer: Promise<T>): Promise<T | undefined> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof GuardFailed) || this.#ending.signal.aborted) throw error;
      this.#emit('unguarded', 'warn', error.message);
      return undefined;
    }
  }

  /** Throws OUTPUT if the WAL is at its limit and nothing can be done about it; waits for readers where they can. */
  async #makeRoom(): Promise<void> {
    const { maxWalBytes = DEFAULT_MAX_WAL_BYTES } = this.#options;
    const copy = this.#copy;
    const { signal } = this.#ending;
    while (copy.walSize >= maxWalBytes && !copy.mustMend && !signal.aborted) {
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
        this.#emit('full', 'warn', message);
      }
      await pause(CHECKPOINT_AGAIN_MS, signal);
    }
  }

  #nextCheck(): number {
    if (this.#copy.isSettled) return CHECK_SETTLED_MS;
    const ms = this.#checkMs;
    this.#checkMs = Math.min(2 * ms, CHECK_LAST_MS);
    return ms;
  }

  /** Waits for news, but never shorter after a failure than told: what cannot be followed would be tried all the time. */
  async #rest(ms: number): Promise<void> {
    if (this.#failures > 0) return pause(ms, this.#ending.signal);
    if (this.#heard.length > 0 || this.#mustList || this.#copy.mustMend) return;
    await new Promise<void>((done) => {
      const timer = setTimeout(done, ms);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
      if (this.#ending.signal.aborted) this.#wake();
    });
    this.#wake = () => {};
  }

  #succeeded(): void {
    this.#failures = 0;
    if (this.#told === undefined) return;
    this.#told = undefined;
    const { path, txid } = this.#copy;
    this.#emit('back', 'info', `${path} follows again and stands at TXID ${formatTxid(txid)}`);
  }

  /** How long to wait. Throws what waiting does not help against. */
  #failed(error: unknown): number {
    if (!hasCode(error, 'REPLICA', 'NOT_FOUND', 'FORMAT')) throw error;
    const { message } = error as JetliteError;
    this.#mustList = true;
    this.#failures++;
    const isTold = this.#failures >= TELL_AFTER || !hasCode(error, 'NOT_FOUND');
    if (isTold && message !== this.#told) {
      this.#told = message;
      const { path, txid } = this.#copy;
      this.#emit(
        'waiting',
        'warn',
        `${message}; ${path} stays at TXID ${formatTxid(txid)} until it can go on`,
      );
    }
    return Math.min(RETRY_FIRST_MS * 2 ** (this.#failures - 1), RETRY_LAST_MS);
  }

  #emit(type: FollowEvent['type'], level: FollowEvent['level'], message: string): void {
    this.#options.onEvent?.({ type, level, message, txid: this.#copy.txid });
  }
}
