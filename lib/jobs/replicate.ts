/**
 * Keeps a replica up to date with a live database until it is told to stop.
 *
 * Invariants:
 * 1. Batches get consecutive TXIDs and are put strictly in that order: the next one is begun only after the last one was
 *    acknowledged as durable.
 * 2. While one is being put, commits go on being captured: into the next batch, in bounded memory.
 * 3. The first commit after quiet goes at once. Under load a batch is sealed when the one before it is durable, or
 *    after `syncIntervalMs`, or when it is full; a commit is never split.
 * 4. What another writer put is never written over: that ends the job.
 */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type Batch, Capture, type CaptureEvent } from '../capture/capture.js';
import { ResumeState } from '../capture/resume-state.js';
import { type ErrorCode, JetliteError } from '../errors.js';
import { formatTxid } from '../ltx/header.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { putBatch, putStreamed } from './put-batch.js';
import { goOnWith } from './replica-state.js';
import { replicaStateFolder, stateFolder } from './state-folder.js';

export type ReplicateEvent =
  | CaptureEvent
  | { readonly type: 'ready'; readonly level: 'info'; readonly message: string; readonly txid: bigint }
  | {
      readonly type: 'put';
      readonly level: 'debug';
      readonly message: string;
      readonly file: LtxFileInfo;
      readonly commits: number;
      readonly pages: number;
    }
  | { readonly type: 'retry' | 'missing'; readonly level: 'warn'; readonly message: string };

export interface ReplicateOptions {
  /** Path of the database. It may be created later. */
  readonly database: string;
  readonly replica: Replica;
  /** Folder for what must outlive the process; by default `.<name>-jetlite` beside the database. */
  readonly stateDir?: string;
  /** Longest time commits gather while an earlier batch is still being put, ms. */
  readonly syncIntervalMs?: number;
  /** End as soon as the replica is up to date. */
  readonly once?: boolean;
  /** False: look at the files by the clock only, every `pollIntervalMs`. */
  readonly fileEvents?: boolean;
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

const DEFAULT_SYNC_INTERVAL_MS = 100;
const DEFAULT_POLL_MS = 1000;
/** Files that follow one another faster than this gather: a replica of a busy database must not drown in files. */
const MIN_SPACING_MS = 25;
/** While a batch gathers there is no hurry: looking at each commit would only cost. */
const GATHER_MS = 2;
/** Sealed batches that may wait for the one being put. */
const QUEUE_LIMIT = 3;
/** And their content, so that memory stays bounded. */
const QUEUE_BYTES = 8 * 1024 * 1024;
/** How often the page sums are saved; what the replica holds beyond them is read again after a restart. */
const SUMS_INTERVAL_MS = 60_000;
/** How long what is under way may still take after the signal to stop. */
const STOP_GRACE_MS = 8000;
const RETRY_FIRST_MS = 250;
const RETRY_LAST_MS = 5000;

/**
 * @throws JetliteError CONFLICT if another writer is at work in the replica, FORMAT or DATABASE if the source is none,
 * NOT_FOUND or FORMAT if the replica's chain cannot be gone on with
 */
export async function replicate(options: ReplicateOptions): Promise<ReplicateResult> {
  const capture = await openWhenThere(options);
  if (capture === undefined) return { txid: 0n, commits: 0, files: 0, bytes: 0, images: 0, restarts: 0 };
  const folder = stateFolder(options.database, options.stateDir);
  const state = new ResumeState(replicaStateFolder(folder, options.replica.url), (message) =>
    options.onEvent?.({ type: 'state', level: 'warn', message }),
  );
  try {
    return await new Session(capture, state, options).run();
  } finally {
    state.close();
    capture.close();
  }
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
  readonly #options: ReplicateOptions;
  readonly #queue: { readonly batch: Batch; readonly txid: bigint }[] = [];
  #putting: Promise<void> | undefined;
  #failure: unknown;
  /** Fires some time after the signal to stop: what hangs then is given up. */
  readonly #grace = new AbortController();
  #graceTimer: NodeJS.Timeout | undefined;
  /** The newest TXID that is durable, and the checksum of its file once one was put. */
  #txid = 0n;
  #fileChecksum: bigint | undefined;
  /** The newest TXID that was given to a batch. */
  #sealedTxid = 0n;
  #sumsSavedAt = performance.now();
  #lastTimestampMs = 0;
  #sealedAt = Number.NEGATIVE_INFINITY;
  #pendingSince = 0;
  readonly #counts = { commits: 0, files: 0, bytes: 0 };

  constructor(capture: Capture, state: ResumeState, options: ReplicateOptions) {
    this.#capture = capture;
    this.#state = state;
    this.#options = options;
  }

  /** Ends when the replica is up to date after the signal, or when the time for that is over. */
  async run(): Promise<ReplicateResult> {
    const { signal } = this.#options;
    const giveGrace = (): void => {
      this.#graceTimer = setTimeout(() => this.#grace.abort(), STOP_GRACE_MS);
    };
    if (signal?.aborted) giveGrace();
    signal?.addEventListener('abort', giveGrace, { once: true });
    try {
      return await this.#run();
    } catch (error) {
      if (!this.#grace.signal.aborted || !hasCode(error, 'ABORTED', 'REPLICA')) throw error;
      const { database, replica } = this.#options;
      throw new JetliteError('REPLICA', `${database}: stopped before ${replica.url} had its last commits`, {
        hint: 'They are in the database: start again when the replica can be reached.',
        cause: error,
      });
    } finally {
      signal?.removeEventListener('abort', giveGrace);
      clearTimeout(this.#graceTimer);
    }
  }

  async #run(): Promise<ReplicateResult> {
    const { signal, once } = this.#options;
    if (!(await this.#begin())) return this.#result();
    for (let first = true; ; first = false) {
      // Read before the poll, so that what was committed before the signal is still taken.
      const stopping = signal?.aborted === true;
      if (stopping) this.#capture.hurry();
      const polled = await this.#poll();
      this.#seal(stopping || (once === true && polled === 'current'));
      if (this.#failure !== undefined) throw this.#failure;
      if (first) this.#emitReady();
      if ((stopping || once) && polled === 'current' && !this.#capture.hasPending) break;
      await this.#rest(polled, stopping);
    }
    while (this.#putting !== undefined) await this.#putting;
    if (this.#failure !== undefined) throw this.#failure;
    await this.#saveSums();
    return this.#result();
  }

  #result(): ReplicateResult {
    const { images, restarts } = this.#capture;
    return { txid: this.#txid, ...this.#counts, images, restarts };
  }

  /**
   * Finds out where the replica stands and gives an empty one its first state. Told to stop meanwhile it still has some
   * time for that; false if that was not enough.
   */
  async #begin(): Promise<boolean> {
    const { replica } = this.#options;
    const interrupt = this.#grace.signal;
    try {
      const state = await this.#withRetries(() =>
        goOnWith(replica, this.#capture, this.#state, { signal: interrupt }),
      );
      this.#txid = state.txid;
      this.#sealedTxid = state.txid;
      this.#lastTimestampMs = state.timestampMs;
      if (state.txid === 0n) await this.#putFirst(interrupt);
      return true;
    } catch (error) {
      if (interrupt.aborted) return false;
      throw error;
    }
  }

  /** TXID 1 without a copy of the database, if nothing spoils it. */
  async #putFirst(signal: AbortSignal): Promise<void> {
    const timestampMs = Date.now();
    let fileChecksum = 0n;
    const onChecksum = async (checksum: bigint): Promise<void> => {
      fileChecksum = checksum;
    };
    const put = await this.#withRetries(() =>
      putStreamed(this.#options.replica, this.#capture, { timestampMs, onChecksum, signal }),
    );
    if (put === undefined) return;
    this.#sealedTxid = 1n;
    if (!this.#capture.hasPending) {
      await this.#state.writePoint({ txid: 1n, fileChecksum, point: this.#capture.point() });
    }
    this.#durable(1n, timestampMs, fileChecksum, put.file, 1, put.pageCount);
  }

  async #poll(): Promise<'current' | 'more' | 'wait'> {
    try {
      const polled = await this.#capture.poll();
      if (this.#capture.hasPending && this.#pendingSince === 0) this.#pendingSince = performance.now();
      return polled;
    } catch (error) {
      if (this.#options.once || !hasCode(error, 'NO_DATABASE', 'CAPTURE')) throw error;
      this.#emit({ type: 'missing', level: 'warn', message: `${(error as Error).message}; waiting` });
      if (this.#options.signal?.aborted) return 'current';
      await pause(this.#options.pollIntervalMs ?? DEFAULT_POLL_MS, this.#options.signal);
      return 'wait';
    }
  }

  /** Makes a batch of what is pending if it is time, and sees to it that batches are being put. */
  #seal(now: boolean): void {
    if (this.#capture.hasPending && (now || this.#isTime())) {
      const batch = this.#capture.take();
      this.#pendingSince = 0;
      this.#sealedAt = performance.now();
      if (batch !== undefined) {
        this.#sealedTxid++;
        this.#queue.push({ batch, txid: this.#sealedTxid });
      }
    }
    if (this.#putting === undefined && this.#queue.length > 0 && this.#failure === undefined) {
      this.#putting = this.#putQueue().finally(() => {
        this.#putting = undefined;
        this.#capture.wake();
      });
    }
  }

  #isTime(): boolean {
    const now = performance.now();
    if (this.#putting === undefined) return now - this.#sealedAt >= MIN_SPACING_MS;
    const interval = this.#options.syncIntervalMs ?? DEFAULT_SYNC_INTERVAL_MS;
    const queued = this.#queue.reduce((sum, { batch }) => sum + batch.pages.bytes, 0);
    return this.#queue.length < QUEUE_LIMIT && queued < QUEUE_BYTES && now - this.#pendingSince >= interval;
  }

  async #putQueue(): Promise<void> {
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        await this.#put(next.batch, next.txid);
      }
      if (performance.now() - this.#sumsSavedAt > SUMS_INTERVAL_MS) await this.#saveSums();
    } catch (error) {
      this.#failure = error;
    }
  }

  async #put(batch: Batch, txid: bigint): Promise<void> {
    const timestampMs = Math.max(batch.timestampMs, this.#lastTimestampMs);
    const { signal } = this.#grace;
    let fileChecksum = 0n;
    const onChecksum = async (checksum: bigint): Promise<void> => {
      fileChecksum = checksum;
      await this.#state.writePoint({ txid, fileChecksum, point: batch.point });
    };
    const file = await this.#withRetries(() =>
      putBatch(this.#options.replica, batch, txid, { timestampMs, onChecksum, signal }),
    );
    const pages = batch.pages.size;
    this.#capture.recycle(batch.pages);
    this.#durable(txid, timestampMs, fileChecksum, file, batch.commits, pages);
  }

  #durable(
    txid: bigint,
    timestampMs: number,
    fileChecksum: bigint,
    file: LtxFileInfo,
    commits: number,
    pages: number,
  ): void {
    this.#txid = txid;
    this.#lastTimestampMs = timestampMs;
    this.#fileChecksum = fileChecksum;
    this.#counts.files++;
    this.#counts.bytes += file.size;
    this.#counts.commits += commits;
    this.#emit({
      type: 'put',
      level: 'debug',
      message: `TXID ${formatTxid(txid)} is durable: ${commits} commits, ${pages} pages, ${file.size} bytes`,
      file,
      commits,
      pages,
    });
  }

  /** The sums run ahead of what is durable while batches wait: they are saved only when none does. */
  async #saveSums(): Promise<void> {
    if (this.#fileChecksum === undefined || this.#sealedTxid !== this.#txid) return;
    this.#sumsSavedAt = performance.now();
    const origin = { txid: this.#txid, fileChecksum: this.#fileChecksum };
    await this.#state.writeSums(this.#capture.sums, origin, this.#capture.pageSize);
  }

  /** Tries again as long as the replica is out of reach; once told to stop, one last time. */
  async #withRetries<T>(attempt: () => Promise<T>): Promise<T> {
    const { signal, once } = this.#options;
    for (let wait = RETRY_FIRST_MS; ; wait = Math.min(wait * 2, RETRY_LAST_MS)) {
      const last = signal?.aborted === true || once === true;
      try {
        return await attempt();
      } catch (error) {
        if (last || !hasCode(error, 'REPLICA')) throw error;
        this.#emit({ type: 'retry', level: 'warn', message: `${(error as Error).message}; trying again` });
        await pause(wait, signal);
      }
    }
  }

  async #rest(polled: 'current' | 'more' | 'wait', stopping: boolean): Promise<void> {
    const { signal, pollIntervalMs = DEFAULT_POLL_MS } = this.#options;
    const blocked = this.#capture.hasPending && !this.#isTime();
    if (polled === 'more' && blocked && this.#putting !== undefined) {
      await Promise.race([this.#putting, delay(MIN_SPACING_MS)]);
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
      ms = Math.max(1, this.#sealedAt + MIN_SPACING_MS - performance.now());
    }
    await this.#capture.wait(ms, signal);
  }

  #emitReady(): void {
    this.#emit({
      type: 'ready',
      level: 'info',
      message: `replicating ${this.#options.database} to ${this.#options.replica.url}`,
      txid: this.#txid,
    });
  }

  #emit(event: ReplicateEvent): void {
    this.#options.onEvent?.(event);
  }
}

function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof JetliteError && codes.includes(error.code);
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
