/**
 * What was captured and not taken yet: the next batch.
 *
 * Invariant: laid over the state that the page sums describe, its pages give a state that some commit left behind, once
 * the image or the commit that brought them is complete.
 */

import { PageSet } from './page-set.js';
import type { PageSums } from './page-sums.js';
import type { ResumePoint } from './resume-state.js';

/** What leads from the state the sums described to the present one. */
export interface Batch {
  /** `image`: compared with the sums after a gap or at the start. `commits`: followed without a gap. */
  readonly kind: 'image' | 'commits';
  /** It holds every page of the database: it leads to its state from any other. */
  readonly whole: boolean;
  readonly pageSize: number;
  /** Size of the database in pages after it. */
  readonly pageCount: number;
  readonly commits: number;
  /** When its last commit was seen, ms since the epoch. */
  readonly timestampMs: number;
  /** The pages; the caller gives them back with `recycle`. */
  readonly pages: PageSet;
  /** Where capture stands behind it. */
  readonly point: ResumePoint;
}

/** Of a batch, or of an image kept; what is beyond goes to a file. Two sets are filled at a time. */
const SET_MEMORY_BYTES = 10 * 1024 * 1024;
/** A set that has grown larger is not worth keeping for the next batch. */
const SPARE_BYTES = 4 * 1024 * 1024;

export class Gathering {
  readonly #pageSize: number;
  readonly #scratchPath: () => string;
  #pages: PageSet;
  #spare: PageSet | undefined;
  #pending: Pick<Batch, 'kind' | 'pageCount' | 'commits' | 'timestampMs'> | undefined;

  /** @param scratchPath names a file that memory may overflow into, another one at each call */
  constructor(pageSize: number, scratchPath: () => string) {
    this.#pageSize = pageSize;
    this.#scratchPath = scratchPath;
    this.#pages = this.newPages();
  }

  /** Whether there is anything to take. */
  get isPending(): boolean {
    return this.#pending !== undefined;
  }

  /** Content gathered, bytes. */
  get bytes(): number {
    return this.#pages.bytes;
  }

  /** Where an image puts its pages. */
  get pages(): PageSet {
    return this.#pages;
  }

  /** An empty set like those that batches are made of. */
  newPages(): PageSet {
    return new PageSet(this.#pageSize, { memoryBytes: SET_MEMORY_BYTES, spillPath: this.#scratchPath() });
  }

  /** One page of a commit under way. */
  page(pgno: number, bytes: Uint8Array, offset: number): void {
    this.#pages.set(pgno, bytes, offset);
  }

  /** The pages since the last commit are a commit. */
  commit(pageCount: number): void {
    const pending = this.#pending;
    // A transaction that spilled pages may have ended with fewer.
    this.#pages.truncate(pageCount);
    this.#pending = {
      kind: pending?.kind ?? 'commits',
      pageCount,
      commits: (pending?.commits ?? 0) + 1,
      timestampMs: Date.now(),
    };
  }

  /** An image of the database is about to be put into `pages`. */
  beginImage(): void {
    this.#pending = undefined;
  }

  /** The image is complete. */
  endImage(pageCount: number): void {
    this.#pending = { kind: 'image', pageCount, commits: 1, timestampMs: Date.now() };
  }

  /** What was gathered is worthless. */
  clear(): void {
    this.#pending = undefined;
    this.#pages.clear();
  }

  /**
   * What was gathered, without `point`; `sums` describe the state after it from now on. Undefined if nothing is
   * pending, or nothing of it differs from what they described before.
   */
  take(sums: PageSums): Omit<Batch, 'point'> | undefined {
    const pending = this.#pending;
    if (pending === undefined) return undefined;
    const pages = this.#pages;
    this.#pages = this.#spare ?? this.newPages();
    this.#spare = undefined;
    this.#pending = undefined;
    const pageSize = this.#pageSize;
    const grownFrom = sums.pageCount;
    sums.pageCount = pending.pageCount;
    let unchanged: number[] | undefined;
    for (const { pgno, page } of pages.pages()) {
      if (pending.kind === 'image' && pgno <= grownFrom && sums.matches(pgno, page, 0, pageSize)) {
        unchanged ??= [];
        unchanged.push(pgno);
      } else sums.record(pgno, page, 0, pageSize);
    }
    for (const pgno of unchanged ?? []) pages.delete(pgno);
    if (pages.size === 0 && pending.pageCount === grownFrom) {
      this.recycle(pages);
      return undefined;
    }
    const whole = pending.kind === 'image' && grownFrom === 0;
    return { ...pending, whole, pageSize, pages };
  }

  /** Takes a batch's pages back for the next one. */
  recycle(pages: PageSet): void {
    if (this.#spare === undefined && pages.bytes <= SPARE_BYTES) {
      pages.clear();
      this.#spare = pages;
    } else pages.close();
  }

  close(): void {
    this.#pages.close();
    this.#spare?.close();
  }
}
