/**
 * Keeps a replica up to date with a live database until it is told to stop: the capture loop, and when batches end. What
 * becomes of a batch then is uploader.ts; what goes on beside, companion.ts.
 *
 * Invariants:
 * 1. While a batch is being put, commits go on being captured: into the next one, in bounded memory.
 * 2. The first commit after quiet goes at once. Under load a batch is sealed when the one before it is durable, or
 *    after `syncIntervalMs`, or when it is full; a commit is never split.
 */

import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { Capture } from '../capture/capture.js';
import { ResumeState } from '../capture/resume-state.js';
import { GivenUpError, JetliteError } from '../errors.js';
import { Attempts, hasCode, isAway, pause } from './session/attempts.js';
import { startAuditor } from './session/auditor.js';
import { watchClock } from './session/clock-behind.js';
import type { Companion, StartCompanion } from './session/companion.js';
import { DamagedFiles } from './session/damaged-files.js';
import { FrozenStates } from './session/frozen-states.js';
import { watchOtherWriters } from './session/other-writers.js';
import { goOnWith } from './session/replica-state.js';
import type { ReplicateEvent } from './session/replicate-event.js';
import type { ReplicateOptions, ReplicateResult } from './session/replicate-options.js';
import { expectSameDatabase, type Newcomer } from './session/same-database.js';
import { Spool } from './session/spool.js';
import { SPOOL_FOLDER } from './session/spool-segment.js';
import { Uploader } from './session/uploader.js';
import { claimState, stateFolder } from './state-folder.js';
import { writeRecord } from './state-record.js';
import { DEFAULT_LEVELS, tidy } from './tidy/tidy.js';
import { startUpkeep } from './tidy/upkeep.js';

export type { ReplicateEvent } from './session/replicate-event.js';
export type { ReplicateOptions, ReplicateResult } from './session/replicate-options.js';

const DEFAULT_SYNC_INTERVAL_MS = 100;
const DEFAULT_POLL_MS = 1000;
const DEFAULT_SPOOL_BYTES = 1024 ** 3;
/** How much of what a server has acknowledged is kept, so that it can be put again should the server lose it. */
const SPOOL_KEEP_BYTES = 64 * 1024 ** 2;
/** Files that follow one another faster than this gather: a replica of a busy database must not drown in files. */
const MIN_SPACING_MS = 25;
/** While a batch gathers there is no hurry: looking at each commit would only cost. */
const GATHER_MS = 2;
/** Longest time between two looks while something is pending: a put that ends, or a file event, comes sooner. */
const BLOCKED_MS = 100;
/** What goes on beside the capture loop, in the order of its start; stopped in the opposite order. */
const COMPANIONS: readonly StartCompanion[] = [watchClock, watchOtherWriters, startAuditor, startUpkeep];

/**
 * @throws JetliteError CONFLICT if another writer is at work in the replica, FORMAT or DATABASE if the source is none,
 * NOT_FOUND or FORMAT if the replica's chain cannot be gone on with
 */
export async function replicate(options: ReplicateOptions): Promise<ReplicateResult> {
  const capture = await openWhenThere(options);
  if (capture === undefined) return { txid: 0n, commits: 0, files: 0, bytes: 0, images: 0, restarts: 0 };
  const { database, stateDir, replica } = options;
  const all = stateFolder(database, stateDir);
  const { folder, release } = await claimState(all, database, replica.url, options.onEvent).catch(
    (error: unknown) => {
      capture.close();
      throw error;
    },
  );
  const state = new ResumeState(folder, (message) =>
    options.onEvent?.({ type: 'state', level: 'warn', message }),
  );
  let spool: Spool | undefined;
  try {
    await writeRecord(folder, replica.url);
    spool = await openSpool(state.folder, options);
    return await new Session(capture, state, spool, options).run();
  } finally {
    await spool?.close();
    state.close();
    capture.close();
    await release();
  }
}

function openSpool(folder: string, options: ReplicateOptions): Promise<Spool> {
  return Spool.open(path.join(folder, SPOOL_FOLDER), {
    maxBytes: options.spoolMaxBytes ?? DEFAULT_SPOOL_BYTES,
    // A folder has synced what it acknowledges; a server may lose it.
    keepBytes: options.replica.url.startsWith('file:') ? 0 : SPOOL_KEEP_BYTES,
    onTrouble: (message) => options.onEvent?.({ type: 'spool', level: 'warn', message }),
  });
}

/** Waits for a database that does not exist yet. Undefined if told to stop meanwhile. */
async function openWhenThere(options: ReplicateOptions): Promise<Capture | undefined> {
  for (let told = false; ; ) {
    try {
      return Capture.open({
        database: options.database,
        scratchDir: stateFolder(options.database, options.stateDir),
        fileEvents: options.fileEvents !== false,
        ...(options.onEvent && { onEvent: options.onEvent }),
      });
    } catch (error) {
      if (options.once || !hasCode(error, 'NO_DATABASE')) throw error;
      if (!told) {
        options.onEvent?.({
          type: 'missing',
          level: 'warn',
          message: `${(error as Error).message}; waiting for it`,
        });
        told = true;
      }
      await pause(options.pollIntervalMs ?? DEFAULT_POLL_MS, options.signal);
      if (options.signal?.aborted) return undefined;
    }
  }
}

/** One database's life from its first image on. */
class Session {
  readonly #capture: Capture;
  readonly #state: ResumeState;
  readonly #spool: Spool;
  readonly #options: ReplicateOptions;
  readonly #attempts: Attempts;
  readonly #uploader: Uploader;
  readonly #states: FrozenStates;
  #sealedAt = Number.NEGATIVE_INFINITY;
  #pendingSince = 0;
  #wasSilent = false;
  #isMissing = false;
  /** Set until the first image, where it is not known to be the replica's database. */
  #newcomer: Newcomer | undefined;
  #isBegunAnew = false;

  constructor(capture: Capture, state: ResumeState, spool: Spool, options: ReplicateOptions) {
    this.#capture = capture;
    this.#state = state;
    this.#spool = spool;
    this.#options = options;
    this.#attempts = new Attempts({
      signal: options.signal,
      stopTimeoutMs: options.stopTimeoutMs,
      once: options.once,
      onRetry: ({ message }) =>
        this.#emit({ type: 'retry', level: 'warn', message: `${message}; trying again` }),
      onBack: (awayMs) => this.#emitBack(awayMs),
    });
    const { replica } = options;
    const emit = (event: ReplicateEvent): void => this.#emit(event);
    this.#uploader = new Uploader({ replica, capture, state, spool, attempts: this.#attempts, emit });
    this.#states = new FrozenStates(capture, () => this.#uploader.sealedTxid);
  }

  /** Ends when the replica is up to date after the signal, or when the time for that is over. */
  async run(): Promise<ReplicateResult> {
    try {
      return await this.#run();
    } catch (error) {
      const { database, replica, signal } = this.#options;
      const isOver = signal?.aborted === true || error instanceof GivenUpError;
      if (!isOver || !hasCode(error, 'ABORTED', 'REPLICA')) throw error;
      const hint = (await this.#uploader.shelve())
        ? `They wait in ${this.#spool.folder}: start again when the replica can be reached.`
        : 'They are in the database: start again when the replica can be reached.';
      const why = hasCode(error, 'REPLICA') ? `: ${(error as Error).message}` : '';
      const message = `${database}: stopped before ${replica.url} had its last commits${why}`;
      throw new JetliteError('REPLICA', message, { hint, cause: error });
    } finally {
      this.#attempts.close();
    }
  }

  async #run(): Promise<ReplicateResult> {
    if (!(await this.#begin())) return this.#result();
    const companions = this.#startCompanions();
    try {
      await this.#follow();
      await this.#uploader.idle();
    } finally {
      this.#states.end();
      for (const companion of companions.reverse()) await this.#stop(companion);
    }
    if (this.#uploader.failure !== undefined) throw this.#uploader.failure;
    await this.#uploader.saveSums();
    await this.#tidyOnce();
    return this.#result();
  }

  async #stop(companion: Companion): Promise<void> {
    try {
      await this.#attempts.unlessHung(companion.stop());
    } catch (error) {
      if (!hasCode(error, 'ABORTED')) throw error;
    }
  }

  /** The capture loop; ends when there is no more to be taken after the signal. */
  async #follow(): Promise<void> {
    const { signal, once } = this.#options;
    for (let first = true; ; first = false) {
      // Read before the poll, so that what was committed before the signal is still taken.
      const stopping = signal?.aborted === true;
      if (stopping) this.#capture.hurry();
      const polled = await this.#poll();
      if (this.#newcomer !== undefined) await this.#recognise(this.#newcomer);
      this.#seal(stopping || (once === true && polled === 'current'));
      this.#states.serve();
      this.#uploader.spoolIfAway();
      if (this.#uploader.failure !== undefined) throw this.#uploader.failure;
      if (first) this.#emitReady();
      this.#tellReach();
      if ((stopping || once) && polled === 'current' && !this.#capture.hasPending) return;
      await this.#rest(polled, stopping);
    }
  }

  /** What was asked for beside `once`. */
  async #tidyOnce(): Promise<void> {
    const { once, forceSnapshot, enforceRetention, levels, replica } = this.#options;
    if (once !== true || !(forceSnapshot || enforceRetention)) return;
    const result = await tidy(replica, {
      settings: { ...DEFAULT_LEVELS, ...(levels || {}) },
      snapshot: forceSnapshot ? 'now' : 'none',
      retain: enforceRetention === true,
      sweep: enforceRetention === true,
      signal: this.#options.signal,
      onEvent: (event) => this.#emit(event),
    });
    if (result.kind === 'done') return;
    throw new JetliteError('REPLICA', `${result.holder} is merging files of ${replica.url} just now`, {
      hint: 'The replica is up to date; try again for the rest in a minute.',
    });
  }

  #startCompanions(): Companion[] {
    const uploader = this.#uploader;
    const session = {
      options: this.#options,
      replica: this.#options.replica,
      capture: this.#capture,
      state: this.#state,
      spool: this.#spool,
      uploader,
      freeze: (signal: AbortSignal) => this.#states.wish(signal),
      damaged: new DamagedFiles(),
      isBegunAnew: this.#isBegunAnew,
      interrupt: this.#attempts.interrupt,
      emit: (event: ReplicateEvent) => this.#emit(event),
      fail: (error: unknown) => uploader.fail(error),
    };
    return COMPANIONS.map((start) => start(session));
  }

  #result(): ReplicateResult {
    const { images, restarts } = this.#capture;
    return { txid: this.#uploader.txid, ...this.#uploader.counts, images, restarts };
  }

  /**
   * Finds out where the replica stands and gives an empty one its first state. Told to stop meanwhile it still has some
   * time for that; false if that was not enough to find out.
   */
  async #begin(): Promise<boolean> {
    const { replica } = this.#options;
    const { interrupt } = this.#attempts;
    let isKnown = false;
    try {
      const state = await this.#attempts.run(
        () =>
          goOnWith(replica, this.#capture, this.#state, {
            signal: interrupt,
            spool: this.#spool,
            auditsNow: this.#options.once,
            onEvent: this.#options.onEvent,
          }),
        isAway,
      );
      isKnown = true;
      this.#uploader.beginAt(state);
      if (state.lost !== undefined) this.#beginAnew(state.lost);
      if (state.spooledTxid === 0n) await this.#uploader.putFirst();
      else if (!state.remembered && !this.#options.allowOtherDatabase) {
        this.#newcomer = { ...state, replica, database: this.#options.database };
      }
      return true;
    } catch (error) {
      if (interrupt.aborted && !isKnown) return false;
      throw error;
    }
  }

  #beginAnew(why: string): void {
    this.#isBegunAnew = true;
    const { url } = this.#options.replica;
    const message = `${url} has lost files: ${why}; the whole database is put`;
    this.#emit({ type: 'lost', level: 'error', message, files: [] });
  }

  async #poll(): Promise<'current' | 'more' | 'wait'> {
    try {
      const polled = await this.#capture.poll();
      this.#tellFound();
      if (this.#capture.hasPending && this.#pendingSince === 0) this.#pendingSince = performance.now();
      return polled;
    } catch (error) {
      if (this.#options.once || !hasCode(error, 'NO_DATABASE', 'CAPTURE')) throw error;
      this.#isMissing = true;
      this.#emit({ type: 'missing', level: 'warn', message: `${(error as Error).message}; waiting` });
      if (this.#options.signal?.aborted) return 'current';
      await pause(this.#options.pollIntervalMs ?? DEFAULT_POLL_MS, this.#options.signal);
      return 'wait';
    }
  }

  /** The first image shows whether this is the replica's database; where both are equal, nothing more is asked. */
  async #recognise(newcomer: Newcomer): Promise<void> {
    if (!this.#capture.hasPending) return;
    const batch = this.#capture.take();
    this.#pendingSince = 0;
    if (batch === undefined) {
      this.#newcomer = undefined;
      return;
    }
    const warning = await this.#attempts.run(() => expectSameDatabase(newcomer, batch), isAway);
    if (warning !== undefined) this.#emit({ type: 'state', level: 'warn', message: warning });
    this.#newcomer = undefined;
    this.#sealedAt = performance.now();
    this.#uploader.add(batch);
  }

  /** Makes a batch of what is pending if it is time. */
  #seal(now: boolean): void {
    if (!this.#capture.hasPending || !(now || this.#isTime())) return;
    const batch = this.#capture.take();
    this.#pendingSince = 0;
    this.#sealedAt = performance.now();
    if (batch !== undefined) this.#uploader.add(batch);
  }

  #isTime(): boolean {
    return this.#dueInMs() <= 0;
  }

  /** How long what is pending is to gather still. */
  #dueInMs(): number {
    const now = performance.now();
    if (!this.#uploader.isPutting) return this.#sealedAt + MIN_SPACING_MS - now;
    const interval = this.#options.syncIntervalMs ?? DEFAULT_SYNC_INTERVAL_MS;
    return this.#pendingSince + this.#uploader.gatherMs(interval) - now;
  }

  async #rest(polled: 'current' | 'more' | 'wait', stopping: boolean): Promise<void> {
    const { signal, pollIntervalMs = DEFAULT_POLL_MS } = this.#options;
    const blocked = this.#capture.hasPending && !this.#isTime();
    if (polled === 'more' && blocked && this.#uploader.isPutting) {
      await Promise.race([this.#uploader.idle(), delay(MIN_SPACING_MS)]);
      return;
    }
    if (polled === 'more') return;
    if (stopping) {
      await delay(1);
      return;
    }
    let ms = pollIntervalMs;
    if (polled === 'wait') ms = 5;
    else if (blocked) {
      await delay(GATHER_MS);
      ms = Math.min(BLOCKED_MS, this.#dueInMs());
    }
    await this.#capture.wait(Math.max(1, ms), signal);
  }

  #emitReady(): void {
    this.#emit({
      type: 'ready',
      level: 'info',
      message: `replicating ${this.#options.database} to ${this.#options.replica.url}`,
      txid: this.#uploader.txid,
    });
  }

  #tellFound(): void {
    if (!this.#isMissing) return;
    this.#isMissing = false;
    const message = `${this.#options.database} can be read again`;
    this.#emit({ type: 'found', level: 'info', message });
  }

  #tellReach(): void {
    const { isSilent } = this.#uploader;
    if (isSilent === this.#wasSilent) return;
    this.#wasSilent = isSilent;
    const { url } = this.#options.replica;
    this.#emit(
      isSilent
        ? { type: 'away', level: 'debug', message: `${url} is out of reach` }
        : { type: 'reached', level: 'debug', message: `${url} is within reach` },
    );
  }

  #emitBack(awayMs: number): void {
    // Should it be out of reach again by now, that is told again.
    this.#wasSilent = false;
    const after = `${(awayMs / 1000).toFixed(1)} s`;
    this.#emit({
      type: 'back',
      level: 'info',
      message: `${this.#options.replica.url} answers again after ${after}`,
    });
  }

  #emit(event: ReplicateEvent): void {
    this.#options.onEvent?.(event);
  }
}
