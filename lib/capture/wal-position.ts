/**
 * Where following stands in a WAL: behind a frame that ends a commit, and at a count of commits.
 *
 * Invariant: the counter of the index, read at the last horizon, and the commits read since are the counter at the
 * position; but for repeated frames among them, which may or may not be counted (frame-reader.ts).
 */

import type { WalIndexHeader } from '../sqlite/wal-index.js';
import { type CountReading, commitsBetween, isSameEpoch } from './change-count.js';
import type { FileEvents } from './file-events.js';
import type { OpenFile } from './files.js';
import { type ChainPosition, FrameReader, type FrameVisitor } from './frame-reader.js';

/** What cannot be proven, in words. */
export interface Gap {
  readonly gap: string;
}

/** Stands behind no frame: the database file itself is the position. */
const NOWHERE: ChainPosition = {
  salt1: -1,
  salt2: -1,
  pageSize: 0,
  bigEndianChecksum: false,
  frame: 0,
  checksum1: 0,
  checksum2: 0,
};

const goOnAlways = (): boolean => true;

export class WalPosition {
  #chain: ChainPosition;
  #counted: CountReading | undefined;
  /** Read since the count was. */
  #commits = 0;
  #repeats = 0;
  #reader: FrameReader | undefined;

  constructor(chain: ChainPosition = NOWHERE, counted?: CountReading) {
    this.#chain = chain;
    this.#counted = counted;
  }

  get chain(): ChainPosition {
    return this.#chain;
  }

  /** Whether no frame was ever read: everything is in the database file. */
  get isNowhere(): boolean {
    return this.#chain.pageSize === 0;
  }

  /** The counter at the position, if it is known for certain. */
  get counted(): CountReading | undefined {
    if (this.#counted === undefined || this.#repeats > 0) return undefined;
    return { ...this.#counted, count: (this.#counted.count + this.#commits) >>> 0 };
  }

  /** Repeated frames read since the last horizon. */
  get repeats(): number {
    return this.#repeats;
  }

  /** The reader behind the position, or beyond it inside a commit that a broken chain interrupted. */
  get reader(): FrameReader {
    this.#reader ??= new FrameReader(this.#chain);
    return this.#reader;
  }

  get isInsideCommit(): boolean {
    return this.#reader !== undefined && this.#reader.frame !== this.#chain.frame;
  }

  /** Goes to another place; what is known of the count stays. */
  moveTo(chain: ChainPosition): void {
    this.#chain = chain;
    this.#reader = undefined;
  }

  /** The counter at the position as it stands now. */
  count(counted: CountReading | undefined): void {
    this.#counted = counted;
    this.#commits = 0;
    this.#repeats = 0;
  }

  /** Commits that the index counts beyond the position, the repeats read since the last horizon among them. */
  async missing(index: WalIndexHeader, shm: OpenFile | undefined, events: FileEvents): Promise<number | Gap> {
    const counted = this.#counted;
    if (counted === undefined || shm === undefined) {
      return { gap: 'the WAL was restarted and no commit count is known from before' };
    }
    if (!(await isSameEpoch(counted, shm, events))) {
      return { gap: 'the WAL was restarted and its index may have been rebuilt since' };
    }
    const made = commitsBetween(counted.count, index.changeCount);
    if (made < this.#commits) return { gap: `the index counts ${made} commits, ${this.#commits} were read` };
    return made - this.#commits;
  }

  /** Hands frames on and moves with each commit, until `visit` or `goOn`, asked behind each, says stop. */
  async read(
    wal: OpenFile,
    target: number,
    visit: FrameVisitor,
    { goOn = goOnAlways, allCommitted = false } = {},
  ): Promise<'reached' | 'stopped' | 'broken'> {
    const { reader } = this;
    const moving: FrameVisitor = (pgno, commit, chunk, at) => {
      const wanted = visit(pgno, commit, chunk, at);
      if (commit === 0) return true;
      this.#chain = reader.position;
      this.#commits += reader.commits - commits;
      this.#repeats += reader.repeats - repeats;
      ({ commits, repeats } = reader);
      return goOn() && wanted;
    };
    let { commits, repeats } = reader;
    return reader.read(wal.fd, target, moving, allCommitted);
  }

  /** Reads up to frame `target`, which must end a commit. */
  async readTo(
    wal: OpenFile,
    target: number,
    visit: FrameVisitor,
    allCommitted = false,
  ): Promise<'reached' | 'more' | 'broken' | Gap> {
    const read = await this.read(wal, target, visit, { allCommitted });
    if (read === 'broken') return 'broken';
    if (read === 'stopped' && this.reader.frame < target) return 'more';
    return this.#chain.frame === target
      ? 'reached'
      : { gap: `the index points into the middle of a commit, at frame ${target}` };
  }
}
