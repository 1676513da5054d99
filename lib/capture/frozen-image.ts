/**
 * The state of one TXID, read from the live files while capture goes on with newer commits.
 *
 * Capture freezes a state when its sums describe exactly that state and following stands at its last frame. What is read
 * later is judged by the frozen sums alone:
 * 1. A page is believed only if its sum is the frozen one. Where it was found is of no importance: in the database file,
 *    in a frame of the WAL up to the frozen position, or among the pages kept. So no race with a checkpoint, a restart of
 *    the WAL or a commit can bring in a page of another state.
 * 2. A page is lost from the files when it is changed by a later commit *and* a checkpoint has brought that into the
 *    database file. Capture sees each changed page in the WAL, as a rule before a checkpoint does: what the page was
 *    before is kept then, unless it was handed on already. What comes too late is asked of `otherwise`, or else the image
 *    is spoilt.
 * 3. A page of which nothing is known stands in no file of the chain, which gives zeros there: so does the image.
 * 4. A page that no later commit has changed, and that nevertheless cannot be found while the same WAL is followed without
 *    a gap, was lost or damaged by the source. That is told.
 *
 * Memory: the sums' changed blocks, a word a page for the WAL's frames, a bit a page, and the pages kept; all but the bits
 * overflow into files. Nothing here opens or closes the database's files: only the handles that capture holds are read.
 */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { lockPage } from '../sqlite/database.js';
import { FRAME_HEADER_SIZE, WAL_HEADER_SIZE } from '../sqlite/wal.js';
import { BLOCK_WORDS, BlockStore } from './block-store.js';
import { type OpenFile, readFully, type SourceFiles } from './files.js';
import { ImageSpoilt } from './image.js';
import type { PageSet } from './page-set.js';
import type { FrozenSums, PageSums } from './page-sums.js';
import type { PageRun } from './streamed-image.js';

export interface FrozenRequest {
  readonly files: SourceFiles;
  readonly pageSize: number;
  /** They describe the state now. */
  readonly sums: PageSums;
  /** Frames of the held WAL that the state may be in; 0 if none is followed. */
  readonly frameCount: number;
  /** Empty; for pages that will be overwritten. */
  readonly kept: PageSet;
  /** Names a file that memory may overflow into, another one at each call. */
  readonly scratchPath: () => string;
  /** Makes capture look at once. */
  readonly wake: () => void;
  /** Whether the WAL holds a commit that may be one, not followed. */
  readonly isUndecided: () => boolean;
  /** Tells that the source has lost or damaged pages. */
  readonly onDamage: (message: string) => void;
  readonly onClose: () => void;
}

/** Gets page `pgno` from somewhere else into `page`; false if it cannot be had there either. */
export type Otherwise = (pgno: number, page: Uint8Array) => Promise<boolean>;

/** Small enough that commits are followed every few milliseconds while pages are compressed. */
const CHUNK_BYTES = 256 * 1024;
/** Of pages that are cut off so many are kept in one go. */
const CUT_BYTES = 32 * 1024 * 1024;
const INDEX_SLICE_MS = 2;
/** For copied sums, and as much for places in the WAL. */
const STORE_BYTES = 8 * 1024 * 1024;
/** How long to wait for capture to have looked once more. */
const LOOK_LIMIT_MS = 5000;

export class FrozenImage {
  readonly pageSize: number;
  readonly sums: FrozenSums;
  readonly #request: FrozenRequest;
  /** The last frame of each page, a word a page; 0 if there is none. */
  readonly #frames: BlockStore;
  readonly #database: OpenFile;
  readonly #wal: OpenFile | undefined;
  /** A bit a page: changed by a later commit. */
  readonly #changed: Uint8Array;
  readonly #page: Uint8Array;
  /** Changed before the places in the WAL were known. */
  readonly #late: number[] = [];
  #indexed = 0;
  /** Pages below it were handed on. */
  #cursor = 1;
  /** No later commit has cut off the pages below it. */
  #uncutEnd: number;
  /** Commits may have gone unseen. */
  #blind = false;
  #looks = 0;
  #damageTold = false;
  #closed = false;

  /** Made by Capture.freeze. */
  constructor(request: FrozenRequest) {
    this.#request = request;
    this.pageSize = request.pageSize;
    this.sums = request.sums.freeze({ memoryBytes: STORE_BYTES, spillPath: request.scratchPath() });
    this.#frames = new BlockStore({ memoryBytes: STORE_BYTES, spillPath: request.scratchPath() });
    this.#database = request.files.database;
    this.#wal = request.frameCount > 0 ? request.files.wal : undefined;
    this.#changed = new Uint8Array(Math.floor(this.sums.pageCount / 8) + 1);
    this.#page = new Uint8Array(request.pageSize);
    this.#uncutEnd = this.sums.pageCount + 1;
  }

  /** Size of the database in pages. */
  get pageCount(): number {
    return this.sums.pageCount;
  }

  /** A later commit changes page `pgno`: called before anything else is done with it. */
  changing(pgno: number): void {
    if (this.#closed || pgno > this.pageCount || this.#isChanged(pgno)) return;
    this.#changed[pgno >>> 3] |= 1 << (pgno & 7);
    if (pgno < this.#cursor) return;
    if (this.#find(pgno, this.#page, 0)) this.#request.kept.set(pgno, this.#page, 0);
    else if (this.#indexed < this.#request.frameCount) this.#late.push(pgno);
  }

  /** After a later commit the database has `pageCount` pages: a checkpoint cuts off what is above, without a frame that says so. */
  resized(pageCount: number): void {
    const end = Math.min(
      this.#uncutEnd,
      Math.max(pageCount + 1, this.#cursor) + Math.floor(CUT_BYTES / this.pageSize),
    );
    for (let pgno = pageCount + 1; pgno < end; pgno++) this.changing(pgno);
    if (pageCount >= this.#uncutEnd) return;
    if (end < this.#uncutEnd) this.#blind = true;
    this.#uncutEnd = pageCount + 1;
  }

  /** Following was interrupted: which pages later commits have changed is not known any more. */
  interrupted(): void {
    this.#blind = true;
  }

  /** Capture has taken in everything that was committed when this look began. */
  looked(): void {
    this.#looks++;
  }

  /**
   * All pages, ascending. The lock page is among them, as zeros, and to be skipped. May be asked for again, but pages that
   * were handed on before are no longer kept.
   * @throws ImageSpoilt if a page cannot be had any more
   */
  async *runs(otherwise?: Otherwise): AsyncGenerator<PageRun> {
    this.#cursor = 1;
    await this.#indexFrames();
    const { pageSize, pageCount } = this;
    const fit = Math.max(1, Math.floor(CHUNK_BYTES / pageSize));
    const bytes = new Uint8Array(fit * pageSize);
    for (let first = 1; first <= pageCount; first += fit) {
      const count = Math.min(fit, pageCount - first + 1);
      for (const pgno of this.#fill(first, count, bytes)) {
        const at = (pgno - first) * pageSize;
        await this.#recover(pgno, bytes.subarray(at, at + pageSize), otherwise);
      }
      this.#cursor = first + count;
      yield { first, count, bytes };
      await turn();
    }
  }

  /** Lets go of everything kept. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.sums.close();
    this.#request.kept.close();
    this.#frames.close();
    this.#request.onClose();
  }

  /** Reads a chunk; the pages of it that the files do not have any more. */
  #fill(first: number, count: number, bytes: Uint8Array): number[] {
    this.#assertOpen();
    const { sums, pageSize } = this;
    const got = readFully(this.#database.fd, bytes, count * pageSize, (first - 1) * pageSize);
    bytes.fill(0, got, count * pageSize);
    const lock = lockPage(pageSize);
    const lost: number[] = [];
    for (let i = 0; i < count; i++) {
      const pgno = first + i;
      const at = i * pageSize;
      if (sums.matches(pgno, bytes, at, pageSize)) continue;
      if (pgno === lock || !sums.isKnown(pgno)) bytes.fill(0, at, at + pageSize);
      else if (this.#request.kept.has(pgno)) this.#request.kept.read(pgno, bytes, at);
      else if (!this.#find(pgno, bytes, at)) lost.push(pgno);
    }
    return lost;
  }

  /** Puts page `pgno` at `at` of `into` if the files still have it. */
  #find(pgno: number, into: Uint8Array, at: number): boolean {
    const { pageSize, sums } = this;
    const { files } = this.#request;
    const wal = this.#heldWal();
    const frame = wal === undefined ? 0 : this.#frameOf(pgno);
    if (frame > 0) {
      const place = WAL_HEADER_SIZE + (frame - 1) * (FRAME_HEADER_SIZE + pageSize) + FRAME_HEADER_SIZE;
      const got = readFully(wal!.fd, into, pageSize, place, at);
      if (got === pageSize && sums.matches(pgno, into, at, pageSize)) return true;
    }
    if (files.database !== this.#database) return false;
    const got = readFully(this.#database.fd, into, pageSize, (pgno - 1) * pageSize, at);
    into.fill(0, at + got, at + pageSize);
    return sums.matches(pgno, into, at, pageSize);
  }

  async #recover(pgno: number, page: Uint8Array, otherwise: Otherwise | undefined): Promise<void> {
    if (this.#isUnexplained(pgno) && (await this.#lookAgain())) {
      // A checkpoint may have been writing the very page that was read.
      if (this.#find(pgno, page, 0)) return;
      if (this.#isUnexplained(pgno)) this.#tellDamage(pgno);
    }
    this.#assertOpen();
    if (await otherwise?.(pgno, page)) {
      if (this.sums.matches(pgno, page, 0, this.pageSize)) return;
      throw new ImageSpoilt(`page ${pgno} is another one where it was looked for`);
    }
    throw new ImageSpoilt(`page ${pgno} was overwritten before it was read`);
  }

  /** Whether nothing that capture knows of can have changed what the files hold of page `pgno`. */
  #isUnexplained(pgno: number): boolean {
    const { files, isUndecided } = this.#request;
    return (
      !this.#blind &&
      !isUndecided() &&
      !this.#isChanged(pgno) &&
      this.#wal !== undefined &&
      this.#heldWal() !== undefined &&
      files.database === this.#database
    );
  }

  /** Waits until capture knows everything that was committed up to now; false if it does not look any more. */
  async #lookAgain(): Promise<boolean> {
    // The look that is under way may have begun before.
    const enough = this.#looks + 2;
    const deadline = performance.now() + LOOK_LIMIT_MS;
    while (this.#looks < enough && !this.#closed && performance.now() < deadline) {
      this.#request.wake();
      await delay(5);
    }
    return this.#looks >= enough && !this.#closed;
  }

  #tellDamage(pgno: number): void {
    if (this.#damageTold) return;
    this.#damageTold = true;
    const { files, onDamage } = this.#request;
    onDamage(
      `${files.path}: page ${pgno} is not what was last committed to it, and no commit explains that: the disk or SQLite ` +
        '(the WAL-reset bug of versions before 3.51.3) has lost or damaged pages. The replica still has what was ' +
        'committed: run PRAGMA integrity_check on the database, and compare it with `jetlite verify --against`',
    );
  }

  #isChanged(pgno: number): boolean {
    return (this.#changed[pgno >>> 3] & (1 << (pgno & 7))) !== 0;
  }

  /** The WAL that the state may be in, as long as it is held. */
  #heldWal(): OpenFile | undefined {
    const { files } = this.#request;
    return this.#wal === files.wal || this.#wal === files.retired?.wal ? this.#wal : undefined;
  }

  #assertOpen(): void {
    if (this.#closed) throw new ImageSpoilt('the capture has ended');
    if (this.#request.files.database !== this.#database) {
      throw new ImageSpoilt('the database file was replaced');
    }
  }

  /** 0 if no frame is known to have page `pgno`. */
  #frameOf(pgno: number): number {
    return this.#frames.read(Math.floor(pgno / BLOCK_WORDS))[pgno % BLOCK_WORDS];
  }

  /** Notes where in the WAL each page stands last. Only a hint: the sums judge what is read there. */
  async #indexFrames(): Promise<void> {
    const { frameCount } = this.#request;
    const header = new Uint8Array(4);
    const view = new DataView(header.buffer);
    let began = performance.now();
    while (this.#indexed < frameCount) {
      this.#assertOpen();
      const wal = this.#heldWal();
      const place = WAL_HEADER_SIZE + this.#indexed * (FRAME_HEADER_SIZE + this.pageSize);
      if (wal === undefined || readFully(wal.fd, header, 4, place) < 4) this.#indexed = frameCount;
      else {
        this.#indexed++;
        const pgno = view.getUint32(0);
        if (pgno <= this.pageCount) {
          this.#frames.change(Math.floor(pgno / BLOCK_WORDS))[pgno % BLOCK_WORDS] = this.#indexed;
        }
      }
      if (performance.now() - began < INDEX_SLICE_MS) continue;
      await turn();
      began = performance.now();
    }
    for (const pgno of this.#late.splice(0)) {
      if (this.#find(pgno, this.#page, 0)) this.#request.kept.set(pgno, this.#page, 0);
    }
  }
}
