/**
 * A live database as a sequence of page sets, each leading from one committed state to a later one.
 *
 * Invariants:
 * 1. A batch holds whole commits only. Laid over the state that the page sums describe it gives a state that some
 *    commit left behind.
 * 2. The page sums describe the state after the last batch that was taken, never one that was only seen.
 * 3. Whatever cannot be followed with proof becomes a gap: what was gathered since the last batch is dropped, and an
 *    image of the database, compared with the sums, takes its place.
 * 4. A database without `-wal` is proven unchanged by its file's times (image.ts). The first WAL that appears while they
 *    stand holds every commit since.
 */

import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { throwIfAborted } from '../errors.js';
import type { CaptureEvent, CaptureOptions } from './capture-options.js';
import { FileEvents } from './file-events.js';
import { isSameFile, SourceFiles, statPath } from './files.js';
import { Follower, type FollowOutcome, type FrameSink } from './follower.js';
import { FrozenImage } from './frozen-image.js';
import { type Batch, Gathering } from './gathering.js';
import { sourcePageSize, takeImage } from './image.js';
import { Pace } from './pace.js';
import type { PageSet } from './page-set.js';
import { PageSums } from './page-sums.js';
import type { ResumePoint } from './resume-state.js';
import { naming, nothingThere, pageSizeChanged } from './source-error.js';
import { beginStreamedImage, type PageRun } from './streamed-image.js';
import { type QuietState, WalLifetimes } from './wal-lifetimes.js';

export type { CaptureEvent, CaptureOptions } from './capture-options.js';
export type { Batch } from './gathering.js';

const DEFAULT_BATCH_BYTES = 16 * 1024 * 1024;
const SUMS_MEMORY_BYTES = 64 * 1024 * 1024;
let scratchCount = 0;

export class Capture {
  readonly files: SourceFiles;
  readonly pageSize: number;
  /** Of the state after the last batch taken. Fill it before the first poll to go on from a replica's state. */
  readonly sums: PageSums;
  /** Times that an image had to take the place of following, the first one included. */
  images = 0;
  readonly #options: CaptureOptions;
  readonly #events: FileEvents;
  readonly #follower: Follower;
  readonly #lifetimes: WalLifetimes;
  readonly #gathering: Gathering;
  readonly #pace: Pace;
  readonly #batchBytes: number;
  /** Why an image is needed before anything can be followed. */
  #imageReason: string | undefined = 'start';
  #frozen: FrozenImage | undefined;
  #isPolling = false;
  /** Why the next image is to hold every page. */
  #wholeReason: string | undefined;
  #quiet: QuietState | undefined;

  private constructor(files: SourceFiles, pageSize: number, options: CaptureOptions) {
    this.files = files;
    this.pageSize = pageSize;
    this.#options = options;
    this.#batchBytes = options.batchBytes ?? DEFAULT_BATCH_BYTES;
    this.#events = new FileEvents(files.path, options.fileEvents !== false);
    this.#follower = new Follower(pageSize, this.#events);
    this.#lifetimes = new WalLifetimes(files, this.#events);
    this.#pace = new Pace(files, this.#events);
    this.#gathering = new Gathering(pageSize, () => this.#scratchPath());
    this.sums = new PageSums({ memoryBytes: SUMS_MEMORY_BYTES, spillPath: this.#scratchPath() });
  }

  /**
   * Opens a database for capture. Reads its header, no more.
   * @throws JetliteError NO_DATABASE if it is missing or holds nothing yet, DATABASE if it cannot be read, FORMAT if it is not SQLite's
   */
  static open(options: CaptureOptions): Capture {
    const files = SourceFiles.open(options.database);
    try {
      const pageSize = sourcePageSize(files);
      if (pageSize === undefined) {
        throw nothingThere(options.database);
      }
      return new Capture(files, pageSize, options);
    } catch (error) {
      files.close();
      throw naming(options.database, error);
    }
  }

  /** Restarts of the WAL that were crossed with proof. */
  get restarts(): number {
    return this.#follower.restarts;
  }

  /** A commit stands beyond an index header that may still govern; it is not taken. */
  get undecided(): boolean {
    return this.#follower.undecided;
  }

  /** Content gathered for the next batch, bytes. */
  get pendingBytes(): number {
    return this.#gathering.isPending ? this.#gathering.bytes : 0;
  }

  get hasPending(): boolean {
    return this.#gathering.isPending;
  }

  /** Resolves when a file of the database has moved, or after `ms`. */
  wait(ms: number, signal?: AbortSignal): Promise<void> {
    return this.#pace.wait(ms, signal);
  }

  /** The next look is not put off, however long the last image took. */
  hurry(): void {
    this.#pace.hurry();
  }

  /**
   * The next batch will hold every page of the database: what came before it is to be needed no more. `why` is for the
   * log.
   */
  takeWhole(why: string): void {
    this.#wholeReason = why;
    this.wake();
  }

  /** Ends a `wait`. */
  wake(): void {
    this.#events.wake();
  }

  /**
   * Takes in what was committed, until everything is or the batch is full.
   * @returns 'current' if everything is taken in, 'more' if the batch is full, 'wait' if there is more but not to be had yet
   * @throws JetliteError NO_DATABASE if it has gone or holds nothing, FORMAT if it is not sound, CAPTURE if no image can be proven
   */
  async poll(): Promise<'current' | 'more' | 'wait'> {
    throwIfAborted(this.#options.signal, 'the capture');
    this.#isPolling = true;
    try {
      const state = await this.#look();
      if (state === 'current') this.#frozen?.looked();
      return state;
    } catch (error) {
      throw naming(this.files.path, error);
    } finally {
      this.#isPolling = false;
    }
  }

  async #look(): Promise<'current' | 'more' | 'wait'> {
    const change = this.files.refresh();
    this.#events.follow(this.files.path);
    if (change.databaseReplaced) this.#gap('the database file was replaced');
    this.#beginWhole();
    if (this.#imageReason === undefined) {
      const state = await this.#follow();
      if (state !== 'image') return state;
    }
    return this.#image();
  }

  /**
   * The whole database, handed on while it is read, without a copy of it: for a replica that holds nothing yet. Once
   * `runs` has ended without an error the sums describe it, and what was committed meanwhile is gathered. If it throws
   * ImageSpoilt, nothing has happened, and `poll` takes an image that bears whatever spoilt this one.
   */
  async stream(): Promise<{ readonly pageCount: number; readonly runs: AsyncGenerator<PageRun> }> {
    const frames = this.#gathering.newPages();
    const { files, pageSize, sums } = this;
    const { signal, onProgress } = this.#options;
    this.#gathering.clear();
    const sink = this.#sink();
    const request = { files, pageSize, frames, sink, sums, signal, onProgress };
    const image = await beginStreamedImage(request, this.#follower).catch((error: unknown) => {
      frames.close();
      throw naming(files.path, error);
    });
    const finish = (quiet: QuietState | undefined): void => this.#imageTaken(quiet, image.pageCount, 'start');
    const forget = (): void => {
      this.#forget('start');
      sums.clear();
    };
    async function* runs(): AsyncGenerator<PageRun> {
      let done = false;
      try {
        finish(yield* image.runs);
        done = true;
      } catch (error) {
        throw naming(files.path, error);
      } finally {
        frames.close();
        if (!done) forget();
      }
    }
    return { pageCount: image.pageCount, runs: runs() };
  }

  /** What was gathered, as a batch; the sums describe the state after it from now on. Undefined if there is nothing. */
  take(): Batch | undefined {
    const taken = this.#gathering.take(this.sums);
    return taken && { ...taken, point: this.point() };
  }

  /**
   * The state that the sums describe, to be read while capture goes on. One at a time: close it.
   * @returns undefined while capture does not stand at that state: when something is pending, or during a poll
   */
  freeze(): FrozenImage | undefined {
    if (this.hasPending || this.#isPolling || this.#imageReason !== undefined || this.#frozen !== undefined) {
      return undefined;
    }
    this.#frozen = new FrozenImage({
      files: this.files,
      pageSize: this.pageSize,
      sums: this.sums,
      frameCount: this.#isFollowing ? this.#follower.position!.frame : 0,
      kept: this.#gathering.newPages(),
      scratchPath: () => this.#scratchPath(),
      wake: () => this.wake(),
      isUndecided: () => this.undecided,
      onDamage: (message) => this.#emit('damage', 'error', message),
      onClose: () => {
        this.#frozen = undefined;
      },
    });
    return this.#frozen;
  }

  /**
   * Goes on from where an earlier process stood, without an image; call it before the first poll, with the sums of
   * that state in place. If the files are not the ones it followed, nothing is resumed.
   */
  resume(point: ResumePoint): void {
    const { database, wal } = this.files;
    if (!isSameFile(point.database, database)) return;
    if (point.wal !== undefined) {
      if (wal === undefined || !isSameFile(point.wal, wal)) return;
      const { position, counted, pageCount } = point.wal;
      // Events that another process saw prove nothing to this one.
      this.#follower.resume(position, counted && { ...counted, events: -1 }, pageCount);
    } else if (point.quiet === undefined || !point.quiet.settled) return;
    if (point.quiet !== undefined) {
      const { stamp, settled, journal } = point.quiet;
      this.#quiet = { stamp, settled, journal };
    }
    this.#imageReason = undefined;
  }

  /** Where capture stands: nowhere while an image is needed. */
  point(): ResumePoint {
    const { database, wal } = this.files;
    const isKnown = this.#imageReason === undefined;
    return {
      database: { dev: database.dev, ino: database.ino },
      wal:
        isKnown && this.#isFollowing
          ? {
              dev: wal!.dev,
              ino: wal!.ino,
              position: this.#follower.position!,
              counted: this.#follower.counted,
              pageCount: this.#follower.pageCount,
            }
          : undefined,
      quiet: isKnown ? this.#quiet : undefined,
    };
  }

  /** Gives a batch's pages back for the next one. */
  recycle(pages: PageSet): void {
    this.#gathering.recycle(pages);
  }

  close(): void {
    this.#events.close();
    this.#frozen?.close();
    this.#gathering.close();
    this.sums.close();
    this.files.close();
  }

  /** A WAL at its path is followed. */
  get #isFollowing(): boolean {
    const { wal, retired } = this.files;
    const { position } = this.#follower;
    return wal !== undefined && position !== undefined && retired === undefined && this.#quiet === undefined;
  }

  /** Not before a poll: an image that is being compared with the sums needs them to stay. */
  #beginWhole(): void {
    if (this.#wholeReason === undefined) return;
    this.#forget(this.#wholeReason);
    this.#wholeReason = undefined;
    this.sums.clear();
  }

  async #follow(): Promise<'current' | 'more' | 'wait' | 'image'> {
    if (this.files.retired !== undefined) {
      const drained = await this.#drain();
      if (drained !== 'drained') return drained;
    }
    const { wal } = this.files;
    if (wal === undefined || !this.files.hasWal) return this.#followQuiet();
    if (this.#quiet === undefined) {
      await this.#lifetimes.follow(wal);
      return this.#pollWal(this.files);
    }
    this.#follower.restart();
    const first = await this.#pollWal(this.files);
    if (first === 'image') return first;
    if (!(await this.#lifetimes.isFirstSince(this.#quiet))) {
      return this.#gap('the database was written before its new WAL was seen');
    }
    // Until its first frames have been read it is not known to be the first.
    if (first !== 'wait') this.#quiet = undefined;
    return first;
  }

  async #pollWal(pair: {
    wal: SourceFiles['wal'];
    shm: SourceFiles['shm'];
  }): Promise<'current' | 'more' | 'wait' | 'image'> {
    const wal = pair.wal!;
    const outcome = await this.#follower.poll(
      { database: this.files.database, wal, shm: pair.shm },
      this.#sink(),
    );
    const isAlone = pair === this.files && pair.shm === undefined && outcome.state !== 'gap';
    // Whoever made it has not published what he had just written when that was read without an index.
    if (isAlone && statPath(this.files.shmPath) !== undefined) return this.#gap('an index came to stand by');
    return this.#after(outcome);
  }

  #after(outcome: FollowOutcome): 'current' | 'more' | 'wait' | 'image' {
    if (outcome.state === 'gap') return this.#gap(outcome.reason);
    if (outcome.state === 'wait') this.#emit('wait', 'debug', outcome.why);
    return outcome.state;
  }

  /** The rest of a WAL that has lost its name: the application closed, and everything in it is in the database now. */
  async #drain(): Promise<'drained' | 'more' | 'wait' | 'image'> {
    const { retired } = this.files;
    if (this.#quiet !== undefined) return this.#gap('a WAL came and went before it was read');
    const state = await this.#pollWal(retired!);
    if (state === 'image') this.files.releaseRetired();
    if (state !== 'current') return state;
    this.#emit('mode', 'debug', 'the database was closed');
    this.#quiet = await this.#lifetimes.afterDeath(retired!, this.#follower.index);
    this.files.releaseRetired();
    return this.#quiet === undefined ? this.#gap('the database was closed') : 'drained';
  }

  #followQuiet(): 'current' | 'wait' | 'image' {
    if (this.#quiet === undefined) return this.#gap('the WAL is gone');
    const unchanged = this.#lifetimes.isUnchanged(this.#quiet);
    if (unchanged === 'settled') this.#quiet = { ...this.#quiet, settled: true };
    if (unchanged !== false) return 'current';
    if (!this.#pace.isImageDue) return 'wait';
    this.#imageReason = 'the database file was written';
    return 'image';
  }

  async #image(): Promise<'current'> {
    const reason = this.#imageReason!;
    const started = performance.now();
    this.#gathering.beginImage();
    this.#frozen?.interrupted();
    const { files, pageSize, sums } = this;
    const now = sourcePageSize(files);
    if (now === undefined) throw nothingThere(files.path);
    if (now !== pageSize) throw pageSizeChanged(files.path, pageSize, now);
    const { signal, onProgress } = this.#options;
    const image = await takeImage(
      { files, pageSize, set: this.#gathering.pages, sums, signal, onProgress },
      this.#follower,
    );
    if (image.pageCount === 0) {
      this.#gathering.clear();
      throw nothingThere(files.path);
    }
    this.#pace.imaged(started);
    this.#gathering.endImage(image.pageCount);
    this.#imageTaken(image.quiet, image.pageCount, reason);
    return 'current';
  }

  #imageTaken(quiet: QuietState | undefined, pageCount: number, reason: string): void {
    this.#imageReason = undefined;
    this.#quiet = quiet;
    this.files.releaseRetired();
    this.images++;
    this.#emit('image', 'debug', `image of ${pageCount} pages taken (${reason})`);
  }

  #sink(): FrameSink {
    return {
      page: (pgno, bytes, offset) => {
        this.#frozen?.changing(pgno);
        this.#gathering.page(pgno, bytes, offset);
      },
      commit: (pageCount) => {
        this.#pace.committed();
        this.#gathering.commit(pageCount);
        this.#frozen?.resized(pageCount);
        return this.#gathering.bytes < this.#batchBytes;
      },
    };
  }

  /** What was gathered is worthless; an image will take its place. */
  #gap(reason: string): 'image' {
    this.#forget(reason);
    this.#emit('gap', 'info', `commits may have been missed (${reason}): comparing pages`);
    return 'image';
  }

  #forget(reason: string): void {
    this.#imageReason = reason;
    this.#gathering.clear();
  }

  #emit(type: CaptureEvent['type'], level: CaptureEvent['level'], message: string): void {
    this.#options.onEvent?.({ type, level, message });
  }

  #scratchPath(): string {
    scratchCount++;
    return path.join(this.#options.scratchDir, `.jetlite-scratch-${process.pid}-${scratchCount}`);
  }
}
