/**
 * Sealed batches on their way into the replica: from memory, or from the spool on disk when it is away.
 *
 * Invariants:
 * 1. Batches get consecutive TXIDs in the order in which they are added and are put strictly in that order: the next one
 *    is begun only after the last one was acknowledged as durable. Each keeps the time at which it was added.
 * 2. `txid` never runs ahead of what the replica has acknowledged; a resume point is written before its TXID is put and
 *    counts only if the replica has it, or stands in the spool with its file.
 * 3. What waits for the replica is in memory, a few batches at most, or in the spool: there without a hole from the file
 *    that is being put, so that a later process can go on with it.
 * 4. What another writer put is never written over: that, like everything that trying again does not mend, is `failure`,
 *    and nothing more is put.
 */

import { performance } from 'node:perf_hooks';
import type { Batch, Capture } from '../../capture/capture.js';
import type { ResumeState } from '../../capture/resume-state.js';
import { formatTxid } from '../../ltx/header.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { type Attempts, isAway } from './attempts.js';
import { encodeBatch, putBatch, putStreamed } from './put-batch.js';
import { type ReplicaState, spoolDamaged } from './replica-state.js';
import type { ReplicateEvent } from './replicate-event.js';
import type { Spool } from './spool.js';

/** Sealed batches that may wait in memory for the one being put. */
const QUEUE_LIMIT = 3;
/** And their content, so that memory stays bounded. */
const QUEUE_BYTES = 8 * 1024 * 1024;
/** A put that takes longer than any healthy one: the replica is away, or as good as that. */
const AWAY_AFTER_MS = 500;
const SLOWEST_BYTES_PER_MS = 4096;
/** What goes to the spool early is one thing; nobody is told of a line that is only slow. */
const SILENT_AFTER_MS = 5000;
const SILENT_BYTES_PER_MS = 16;
const SILENT_AT_MOST_MS = 60_000;
/** While a backlog is put, batches are sealed this much more seldom than one of it takes: so it gets shorter. */
const BACKLOG_SPACING = 10;
const SPOOL_RETRY_MS = 5000;
const SPOOL_SYNC_MS = 1000;
/** How often the page sums are saved; what the replica holds beyond them is read again after a restart. */
const SUMS_INTERVAL_MS = 60_000;

/** A level-0 file that the replica has acknowledged. */
export interface DurableFile {
  readonly file: LtxFileInfo;
  /** The checksum in its trailer. */
  readonly fileChecksum: bigint;
  readonly commits: number;
  readonly pages: number;
  /** It holds the whole database, and a snapshot like it stands beside it. */
  readonly whole: boolean;
}

export interface UploaderOptions {
  readonly replica: Replica;
  readonly capture: Capture;
  readonly state: ResumeState;
  /** Undefined: what waits, waits in memory. */
  readonly spool: Spool | undefined;
  readonly attempts: Attempts;
  readonly emit: (event: ReplicateEvent) => void;
}

/** A sealed batch in memory. */
interface Sealed {
  readonly batch: Batch;
  readonly txid: bigint;
  readonly timestampMs: number;
  /** How many still read its pages. */
  users: number;
}

export class Uploader {
  readonly #options: UploaderOptions;
  /** In the order of their TXIDs, up to `#sealedTxid`; what is not here is in the spool. */
  readonly #memory: Sealed[] = [];
  readonly #listeners = new Set<(durable: DurableFile) => void>();
  #putting: Promise<void> | undefined;
  /** What is being put, or could not be; `sealed` if it comes from memory. */
  #head:
    | { readonly sealed: Sealed | undefined; readonly bytes: number; readonly begunAt: number }
    | undefined;
  #lastPutMs = 0;
  #spooling: Promise<void> | undefined;
  #spoolRefusedAt = Number.NEGATIVE_INFINITY;
  #spoolSyncedAt = 0;
  #isSpoolFull = false;
  /**
   * What is committed after `sinceMs` waits for room in memory, since the spool has none; until `untilMs` where a batch
   * has taken it since. Undefined as long as there is room.
   */
  #noRoom: { readonly sinceMs: number; untilMs: number | undefined; readonly why: string } | undefined;
  #keeping: Promise<unknown> = Promise.resolve();
  #failure: unknown;
  #txid = 0n;
  /** Of the file of `#txid`; 0 if the replica is empty. */
  #fileChecksum = 0n;
  #sealedTxid = 0n;
  #sealedTimestampMs = 0;
  /** Of the newest state that is in the replica or on disk. */
  #safeTimestampMs = 0;
  #sumsSavedAt = performance.now();
  readonly #counts = { commits: 0, files: 0, bytes: 0 };

  constructor(options: UploaderOptions) {
    this.#options = options;
  }

  /** The newest TXID that is durable in the replica. */
  get txid(): bigint {
    return this.#txid;
  }

  /** The newest TXID that was given to a batch. */
  get sealedTxid(): bigint {
    return this.#sealedTxid;
  }

  /** What was put so far. */
  get counts(): { readonly commits: number; readonly files: number; readonly bytes: number } {
    return this.#counts;
  }

  /** A put is under way. */
  get isPutting(): boolean {
    return this.#putting !== undefined;
  }

  /** Whether the replica is out of reach, or so slow that it comes to the same. */
  get isAway(): boolean {
    return this.#options.attempts.isTroubled || this.#isOverdue(AWAY_AFTER_MS, SLOWEST_BYTES_PER_MS);
  }

  /** Whether the replica is out of reach, or has not answered for so long that it must be. */
  get isSilent(): boolean {
    const { attempts, replica } = this.#options;
    if (replica.isLost === true || attempts.isTroubled) return true;
    return this.#isOverdue(SILENT_AFTER_MS, SILENT_BYTES_PER_MS, SILENT_AT_MOST_MS);
  }

  /** How long commits are to gather before the next batch is added while a put is under way, ms. */
  gatherMs(intervalMs: number): number {
    if (this.#isMemoryFull) return Number.POSITIVE_INFINITY;
    const isBacklog = this.#sealedTxid - this.#txid > BigInt(QUEUE_LIMIT + 1);
    return isBacklog && !this.isAway ? Math.max(intervalMs, BACKLOG_SPACING * this.#lastPutMs) : intervalMs;
  }

  /** What ended the uploading; undefined while all is well. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Nothing was added yet: the replica stands there, and what the spool holds beyond it is put first. */
  beginAt(state: ReplicaState): void {
    this.#txid = state.txid;
    this.#fileChecksum = state.fileChecksum;
    this.#sealedTxid = state.spooledTxid;
    this.#sealedTimestampMs = state.timestampMs;
    this.#safeTimestampMs = state.timestampMs;
    this.#startPutting();
  }

  /** TXID 1 of an empty replica without a copy of the database. Nothing happens if a writer spoils it. */
  async putFirst(): Promise<void> {
    const { replica, capture, state, attempts } = this.#options;
    let fileChecksum = 0n;
    const onChecksum = async (checksum: bigint): Promise<void> => {
      fileChecksum = checksum;
    };
    const signal = attempts.interrupt;
    const put = await attempts.run(() => putStreamed(replica, capture, { onChecksum, signal }), isAway);
    if (put === undefined) return;
    // It holds an image that nothing here describes.
    if (put.isLate) capture.takeWhole('an earlier try to put TXID 1 arrived late');
    this.#sealedTxid = 1n;
    this.#sealedTimestampMs = put.file.timestampMs;
    if (!put.isLate && !capture.hasPending)
      await state.writePoint({ txid: 1n, fileChecksum, point: capture.point() });
    this.#durable({ file: put.file, fileChecksum, commits: 1, pages: put.pageCount, whole: true });
  }

  /** Takes over a batch; its pages go back to the capture when they are not needed any more. */
  add(batch: Batch): void {
    this.#sealedTxid++;
    this.#sealedTimestampMs = Math.max(batch.timestampMs, this.#sealedTimestampMs);
    this.#memory.push({ batch, txid: this.#sealedTxid, timestampMs: this.#sealedTimestampMs, users: 1 });
    if (this.#noRoom !== undefined) this.#noRoom.untilMs ??= this.#sealedTimestampMs;
    this.#startPutting();
    this.spoolIfAway();
  }

  /** Begins to write what waits in memory to the spool if the replica is away. */
  spoolIfAway(): void {
    const { spool } = this.#options;
    if (spool === undefined || this.#spooling !== undefined || !this.isAway) return;
    if (this.#unspooled(spool) === undefined) return;
    if (performance.now() - this.#spoolRefusedAt < SPOOL_RETRY_MS) {
      if (this.#isMemoryFull) this.#tellNoRoom();
      return;
    }
    this.#startSpooling();
  }

  /** Resolves when nothing is being put, at once if nothing is. See `failure` then. */
  async idle(): Promise<void> {
    while (this.#putting !== undefined) await this.#putting;
  }

  /**
   * Nothing is put any more: what waits goes to the spool. True if all of it is there, for a later process to put; if not,
   * the moments that this costs are told.
   */
  async shelve(): Promise<boolean> {
    const { spool } = this.#options;
    if (spool === undefined || this.#sealedTxid === this.#txid) return false;
    await this.#spooling;
    this.#startSpooling();
    await this.#spooling;
    await spool.sync();
    if (spool.lastTxid === this.#sealedTxid) return true;
    const message = `moments after ${moment(this.#safeTimestampMs)}, until replication begins again, have no restore point of their own: ${this.#whyNoRoom}`;
    this.#options.emit({ type: 'spool', level: 'warn', message });
    return false;
  }

  /** Calls back for each file that became durable, in TXID order; the answer takes the wish back. Must not throw. */
  onDurable(listener: (durable: DurableFile) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when `txid` is durable, or the signal fires; whichever, `txid` tells. */
  async whenDurable(txid: bigint, signal?: AbortSignal): Promise<void> {
    if (this.#txid >= txid || signal?.aborted) return;
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        forget();
        signal?.removeEventListener('abort', finish);
        resolve();
      };
      const forget = this.onDurable(() => {
        if (this.#txid >= txid) finish();
      });
      signal?.addEventListener('abort', finish, { once: true });
    });
  }

  /** Ends the uploading with this error; what is being put is not waited for. */
  fail(error: unknown): void {
    this.#failure ??= error;
    this.#options.capture.wake();
  }

  /** The sums run ahead of what is durable while batches wait: they are saved only when none does. */
  async saveSums(): Promise<void> {
    if (this.#counts.files === 0 || this.#sealedTxid !== this.#txid) return;
    this.#sumsSavedAt = performance.now();
    const { state, capture } = this.#options;
    const origin = { txid: this.#txid, fileChecksum: this.#fileChecksum };
    await state.writeSums(capture.sums, origin, capture.pageSize);
  }

  #isOverdue(afterMs: number, bytesPerMs: number, mostMs = Number.POSITIVE_INFINITY): boolean {
    const head = this.#head;
    if (head === undefined) return false;
    return performance.now() - head.begunAt > Math.min(afterMs + head.bytes / bytesPerMs, mostMs);
  }

  get #isMemoryFull(): boolean {
    const bytes = this.#memory.reduce((sum, { batch }) => sum + batch.pages.bytes, 0);
    return this.#memory.length >= QUEUE_LIMIT || bytes >= QUEUE_BYTES;
  }

  #startPutting(): void {
    if (this.#putting !== undefined || this.#failure !== undefined || this.#sealedTxid === this.#txid) return;
    this.#putting = this.#putAll().finally(() => {
      this.#putting = undefined;
      this.#options.capture.wake();
    });
  }

  async #putAll(): Promise<void> {
    try {
      while (this.#txid < this.#sealedTxid && this.#failure === undefined) {
        const begunAt = performance.now();
        const next = this.#memory[0];
        if (next !== undefined && next.txid === this.#txid + 1n) await this.#putSealed(next);
        else await this.#putSpooled(this.#txid + 1n);
        this.#lastPutMs = performance.now() - begunAt;
      }
      if (performance.now() - this.#sumsSavedAt > SUMS_INTERVAL_MS) await this.saveSums();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  async #putSealed(sealed: Sealed): Promise<void> {
    const { batch, txid, timestampMs } = sealed;
    const { replica, state, attempts, spool } = this.#options;
    this.#memory.shift();
    this.#head = { sealed, bytes: batch.pages.bytes, begunAt: performance.now() };
    const signal = attempts.interrupt;
    const pages = batch.pages.size;
    let fileChecksum = 0n;
    let bytes: readonly Uint8Array[] | undefined;
    const onChecksum = async (checksum: bigint, blocks?: readonly Uint8Array[]): Promise<void> => {
      fileChecksum = checksum;
      bytes = blocks;
      await state.writePoint({ txid, fileChecksum, point: batch.point });
    };
    const file = await attempts.run(() =>
      putBatch(replica, batch, txid, { timestampMs, onChecksum, signal }),
    );
    this.#head = undefined;
    this.#letGo(sealed);
    const previousChecksum = this.#fileChecksum;
    const { commits, point, whole } = batch;
    this.#durable({ file, fileChecksum, commits, pages, whole });
    if (bytes === undefined || !spool?.keeps) return;
    // Not waited for; but no more than one at a time, so that memory stays bounded.
    await this.#keeping;
    this.#keeping = spool.append({ txid, previousChecksum, timestampMs, commits, pages }, point, bytes);
  }

  async #putSpooled(txid: bigint): Promise<void> {
    const { replica, state, attempts } = this.#options;
    const spool = this.#options.spool!;
    const spooled = await spool.read(txid);
    if (spooled === undefined) throw await spoolDamaged(spool, txid);
    const { fileChecksum, timestampMs, commits, pages, point, content, size } = spooled;
    this.#head = { sealed: undefined, bytes: size, begunAt: performance.now() };
    if (point !== undefined) await state.writePoint({ txid, fileChecksum, point });
    const target = { level: 0, minTxid: txid, maxTxid: txid, timestampMs };
    const file = await attempts.run(() => replica.write(target, content, attempts.interrupt));
    this.#head = undefined;
    this.#durable({ file, fileChecksum, commits, pages, whole: false });
  }

  #startSpooling(): void {
    this.#spooling = this.#spoolAll().finally(() => {
      this.#spooling = undefined;
      this.#options.capture.wake();
    });
  }

  /** Everything in memory goes to the spool, in order, the batch that is being put before all others. */
  async #spoolAll(): Promise<void> {
    const { spool } = this.#options;
    if (spool === undefined) return;
    for (let next = this.#unspooled(spool); next !== undefined; next = this.#unspooled(spool)) {
      const { batch, txid, timestampMs } = next;
      const { commits, point } = batch;
      const pages = batch.pages.size;
      const entry = { txid, previousChecksum: this.#fileChecksum, timestampMs, commits, pages };
      next.users++;
      const appended = await spool.append(entry, point, encodeBatch(batch, txid, timestampMs));
      this.#letGo(next);
      if (appended !== 'written') {
        this.#spoolRefusedAt = performance.now();
        this.#isSpoolFull = appended === 'full';
        return;
      }
      this.#safeTimestampMs = Math.max(this.#safeTimestampMs, timestampMs);
      const message = `TXID ${formatTxid(txid)} waits on disk: ${commits} commits, ${pages} pages`;
      this.#options.emit({ type: 'spooled', level: 'debug', message, txid });
      const at = this.#memory.indexOf(next);
      if (at === -1) continue;
      this.#memory.splice(at, 1);
      this.#letGo(next);
    }
    if (performance.now() - this.#spoolSyncedAt > SPOOL_SYNC_MS) {
      this.#spoolSyncedAt = performance.now();
      await spool.sync();
    }
  }

  #unspooled(spool: Spool): Sealed | undefined {
    const head = this.#head?.sealed;
    if (head !== undefined && head.txid > spool.lastTxid) return head;
    return this.#memory.find(({ txid }) => txid > spool.lastTxid);
  }

  #letGo(sealed: Sealed): void {
    if (--sealed.users === 0) this.#options.capture.recycle(sealed.batch.pages);
  }

  #durable(durable: DurableFile): void {
    const { file, fileChecksum, commits, pages } = durable;
    this.#txid = file.maxTxid;
    this.#fileChecksum = fileChecksum;
    this.#safeTimestampMs = Math.max(this.#safeTimestampMs, file.timestampMs);
    this.#counts.files++;
    this.#counts.bytes += file.size;
    this.#counts.commits += commits;
    this.#options.spool?.release(file.maxTxid);
    this.#tellRoom();
    this.#options.emit({
      type: 'put',
      level: 'debug',
      message: `TXID ${formatTxid(file.maxTxid)} is durable: ${commits} commits, ${pages} pages, ${file.size} bytes`,
      file,
      commits,
      pages,
    });
    for (const listener of [...this.#listeners]) listener(durable);
  }

  get #whyNoRoom(): string {
    return this.#isSpoolFull ? 'the spool was full' : 'the spool could not be written';
  }

  /** From now on commits gather; what was sealed keeps its own TXID. */
  #tellNoRoom(): void {
    if (this.#noRoom !== undefined) {
      this.#noRoom.untilMs = undefined;
      return;
    }
    const sinceMs = this.#sealedTimestampMs;
    this.#noRoom = { sinceMs, untilMs: undefined, why: this.#whyNoRoom };
    if (!this.#isSpoolFull) return;
    const message = `the spool is full: what is committed after ${moment(sinceMs)}, until the replica answers, becomes one state of it`;
    this.#options.emit({ type: 'spool', level: 'warn', message });
  }

  #tellRoom(): void {
    if (this.#noRoom === undefined || this.#memory.length > 0) return;
    const { sinceMs, untilMs, why } = this.#noRoom;
    // What has gathered is not sealed yet, if anything has.
    if (untilMs === undefined && this.#options.capture.hasPending) return;
    this.#noRoom = undefined;
    if (untilMs === undefined) return;
    const message = `moments between ${moment(sinceMs)} and ${moment(untilMs)} have no restore point of their own: ${why}`;
    this.#options.emit({ type: 'spool', level: 'warn', message });
  }
}

function moment(ms: number): string {
  return new Date(ms).toISOString();
}
