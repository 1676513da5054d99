/**
 * Sealed batches on their way into the replica.
 *
 * Invariants:
 * 1. Batches get consecutive TXIDs in the order in which they are added and are put strictly in that order: the next one
 *    is begun only after the last one was acknowledged as durable.
 * 2. `txid` never runs ahead of what the replica has acknowledged; a resume point is written before its TXID is put and
 *    counts only if the replica has it.
 * 3. What another writer put is never written over: that, like everything that trying again does not mend, is `failure`,
 *    and nothing more is put.
 */

import { performance } from 'node:perf_hooks';
import type { Batch, Capture } from '../capture/capture.js';
import type { ResumeState } from '../capture/resume-state.js';
import { formatTxid } from '../ltx/header.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { type Attempts, isAway } from './attempts.js';
import { putBatch, putStreamed } from './put-batch.js';
import type { ReplicaState } from './replica-state.js';
import type { ReplicateEvent } from './replicate-event.js';

/** Sealed batches that may wait for the one being put. */
const QUEUE_LIMIT = 3;
/** And their content, so that memory stays bounded. */
const QUEUE_BYTES = 8 * 1024 * 1024;
/** How often the page sums are saved; what the replica holds beyond them is read again after a restart. */
const SUMS_INTERVAL_MS = 60_000;

/** A level-0 file that the replica has acknowledged. */
export interface DurableFile {
  readonly file: LtxFileInfo;
  /** The checksum in its trailer. */
  readonly fileChecksum: bigint;
  readonly commits: number;
  readonly pages: number;
}

export interface UploaderOptions {
  readonly replica: Replica;
  readonly capture: Capture;
  readonly state: ResumeState;
  readonly attempts: Attempts;
  readonly emit: (event: ReplicateEvent) => void;
}

export class Uploader {
  readonly #options: UploaderOptions;
  readonly #queue: { readonly batch: Batch; readonly txid: bigint }[] = [];
  readonly #listeners = new Set<(durable: DurableFile) => void>();
  #putting: Promise<void> | undefined;
  #failure: unknown;
  #txid = 0n;
  /** Of the file of `#txid`, once one was put. */
  #fileChecksum: bigint | undefined;
  #sealedTxid = 0n;
  #lastTimestampMs = 0;
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

  /** No further batch should be added for now, so that memory stays bounded. */
  get isFull(): boolean {
    if (this.#queue.length >= QUEUE_LIMIT) return true;
    return this.#queue.reduce((sum, { batch }) => sum + batch.pages.bytes, 0) >= QUEUE_BYTES;
  }

  /** What ended the uploading; undefined while all is well. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Nothing was added yet: the replica stands there. */
  beginAt(state: ReplicaState): void {
    this.#txid = state.txid;
    this.#sealedTxid = state.txid;
    this.#lastTimestampMs = state.timestampMs;
  }

  /** TXID 1 of an empty replica without a copy of the database. Nothing happens if a writer spoils it. */
  async putFirst(): Promise<void> {
    const { replica, capture, state, attempts } = this.#options;
    const timestampMs = Date.now();
    let fileChecksum = 0n;
    const onChecksum = async (checksum: bigint): Promise<void> => {
      fileChecksum = checksum;
    };
    const signal = attempts.interrupt;
    const put = await attempts.run(
      () => putStreamed(replica, capture, { timestampMs, onChecksum, signal }),
      isAway,
    );
    if (put === undefined) return;
    this.#sealedTxid = 1n;
    if (!capture.hasPending) await state.writePoint({ txid: 1n, fileChecksum, point: capture.point() });
    this.#durable({ file: put.file, fileChecksum, commits: 1, pages: put.pageCount });
  }

  /** Takes over a batch; its pages go back to the capture once it is durable. */
  add(batch: Batch): void {
    this.#sealedTxid++;
    this.#queue.push({ batch, txid: this.#sealedTxid });
    if (this.#putting !== undefined || this.#failure !== undefined) return;
    this.#putting = this.#putQueue().finally(() => {
      this.#putting = undefined;
      this.#options.capture.wake();
    });
  }

  /** Resolves when nothing is being put, at once if nothing is. See `failure` then. */
  async idle(): Promise<void> {
    while (this.#putting !== undefined) await this.#putting;
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
    if (this.#fileChecksum === undefined || this.#sealedTxid !== this.#txid) return;
    this.#sumsSavedAt = performance.now();
    const { state, capture } = this.#options;
    const origin = { txid: this.#txid, fileChecksum: this.#fileChecksum };
    await state.writeSums(capture.sums, origin, capture.pageSize);
  }

  async #putQueue(): Promise<void> {
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        if (this.#failure !== undefined) return;
        await this.#put(next.batch, next.txid);
      }
      if (performance.now() - this.#sumsSavedAt > SUMS_INTERVAL_MS) await this.saveSums();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  async #put(batch: Batch, txid: bigint): Promise<void> {
    const { replica, capture, state, attempts } = this.#options;
    const timestampMs = Math.max(batch.timestampMs, this.#lastTimestampMs);
    const signal = attempts.interrupt;
    let fileChecksum = 0n;
    const onChecksum = async (checksum: bigint): Promise<void> => {
      fileChecksum = checksum;
      await state.writePoint({ txid, fileChecksum, point: batch.point });
    };
    const file = await attempts.run(() =>
      putBatch(replica, batch, txid, { timestampMs, onChecksum, signal }),
    );
    const pages = batch.pages.size;
    capture.recycle(batch.pages);
    this.#durable({ file, fileChecksum, commits: batch.commits, pages });
  }

  #durable(durable: DurableFile): void {
    const { file, fileChecksum, commits, pages } = durable;
    this.#txid = file.maxTxid;
    this.#lastTimestampMs = file.timestampMs;
    this.#fileChecksum = fileChecksum;
    this.#counts.files++;
    this.#counts.bytes += file.size;
    this.#counts.commits += commits;
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
}
