/**
 * Reads frames of one generation in bounded chunks, carrying the checksum chain on.
 *
 * A reader stands behind a frame. Each frame it hands out is proven by the chain, so whatever the file's writer does
 * meanwhile, what is handed out is what was once written as that frame. Memory: one chunk, whatever the WAL's size.
 *
 * SQLite 3.40 to 3.50.1, at least, can commit frames without salts and checksum (wal.ts). Readers take them all the same,
 * because the index says so; `readUnproven` is for them.
 */

import {
  decodeFrameHeader,
  FRAME_HEADER_SIZE,
  FrameScanner,
  isUnsummedFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
  type WalHeader,
} from '../sqlite/wal.js';
import { readFully } from './files.js';

/** Where a generation's chain stands: behind frame `frame`, with the checksum that frame carries. */
export interface ChainPosition {
  readonly salt1: number;
  readonly salt2: number;
  readonly pageSize: number;
  readonly bigEndianChecksum: boolean;
  readonly frame: number;
  readonly checksum1: number;
  readonly checksum2: number;
}

/** The position before a generation's first frame. */
export function generationStart(wal: WalHeader): ChainPosition {
  return {
    salt1: wal.salt1,
    salt2: wal.salt2,
    pageSize: wal.pageSize,
    bigEndianChecksum: wal.bigEndianChecksum,
    frame: 0,
    checksum1: wal.checksum1,
    checksum2: wal.checksum2,
  };
}

/** What is done with a frame; false stops the reading behind it. */
export type FrameVisitor = (pgno: number, commit: number, chunk: Uint8Array, pageOffset: number) => boolean;

const CHUNK_BYTES = 1024 * 1024;
/** One for all readers: reading is synchronous, and chunks are never handed to anyone who keeps them. */
const chunk = new Uint8Array(CHUNK_BYTES);

export class FrameReader {
  /** Frames read so far; the next one is `frame + 1`. */
  frame: number;
  /** Commits read since the reader was made, repeats left out. */
  commits = 0;
  /** Commit frames that repeat the frame before: sector padding, or a commit that changed nothing. */
  repeats = 0;
  readonly #start: ChainPosition;
  readonly #scanner: FrameScanner;
  readonly #frameSize: number;
  #lastPgno = 0;
  #lastCommit = 0;

  constructor(position: ChainPosition) {
    this.#start = position;
    this.frame = position.frame;
    const checksum = new WalChecksum(position.bigEndianChecksum, position.checksum1, position.checksum2);
    this.#scanner = new FrameScanner(position.pageSize, position.salt1, position.salt2, checksum);
    this.#frameSize = FRAME_HEADER_SIZE + position.pageSize;
  }

  /** Where the reader stands now. */
  get position(): ChainPosition {
    const { s1, s2 } = this.#scanner.checksum;
    return { ...this.#start, frame: this.frame, checksum1: s1, checksum2: s2 };
  }

  get checksum1(): number {
    return this.#scanner.checksum.s1;
  }

  get checksum2(): number {
    return this.#scanner.checksum.s2;
  }

  /**
   * Reads up to frame `target` (Infinity: as far as the chain holds), in one chunk at most.
   * @returns 'reached' the target, 'stopped' by the visitor, 'chunk' done and more to come, 'broken': the next frame
   * is not (or no longer, or not yet) a valid one
   */
  read(fd: number, target: number, visit: FrameVisitor): 'reached' | 'stopped' | 'chunk' | 'broken' {
    if (this.frame >= target) return 'reached';
    const frameSize = this.#frameSize;
    const fit = Math.max(1, Math.floor(CHUNK_BYTES / frameSize));
    const wanted = Math.min(fit, target - this.frame);
    const at = WAL_HEADER_SIZE + this.frame * frameSize;
    const whole = Math.floor(readFully(fd, chunk, wanted * frameSize, at) / frameSize);
    const scanner = this.#scanner;
    for (let i = 0; i < whole; i++) {
      const offset = i * frameSize;
      if (!scanner.next(chunk, offset)) return 'broken';
      this.frame++;
      const { pgno, commit } = scanner;
      if (commit !== 0) {
        if (this.#isRepeat(fd, pgno, commit, offset, i)) this.repeats++;
        else this.commits++;
      }
      this.#lastPgno = pgno;
      this.#lastCommit = commit;
      if (!visit(pgno, commit, chunk, offset + FRAME_HEADER_SIZE)) return 'stopped';
    }
    if (this.frame >= target) return 'reached';
    return whole === wanted ? 'chunk' : 'broken';
  }

  /** Whether the next frame is one that SQLite committed without salts and checksum. */
  isUnsummedNext(fd: number): boolean {
    const header = new Uint8Array(FRAME_HEADER_SIZE);
    const at = WAL_HEADER_SIZE + this.frame * this.#frameSize;
    return (
      readFully(fd, header, FRAME_HEADER_SIZE, at) === FRAME_HEADER_SIZE &&
      isUnsummedFrame(decodeFrameHeader(header, 0))
    );
  }

  /**
   * Reads the frames up to `target` without the chain, in one chunk at most. Only the index vouches for them: the caller
   * must find afterwards that it still does. Once `target` is reached the chain goes on with the checksum given.
   */
  readUnproven(
    fd: number,
    target: number,
    checksum: { readonly s1: number; readonly s2: number },
    visit: FrameVisitor,
  ): 'reached' | 'chunk' | 'broken' {
    const frameSize = this.#frameSize;
    const wanted = Math.min(Math.max(1, Math.floor(CHUNK_BYTES / frameSize)), target - this.frame);
    const at = WAL_HEADER_SIZE + this.frame * frameSize;
    if (readFully(fd, chunk, wanted * frameSize, at) < wanted * frameSize) return 'broken';
    for (let i = 0; i < wanted; i++) {
      const { pgno, commit } = decodeFrameHeader(chunk, i * frameSize);
      if (pgno === 0) return 'broken';
      this.frame++;
      if (commit !== 0) this.commits++;
      visit(pgno, commit, chunk, i * frameSize + FRAME_HEADER_SIZE);
    }
    this.#lastPgno = 0;
    if (this.frame < target) return 'chunk';
    this.#scanner.checksum.s1 = checksum.s1;
    this.#scanner.checksum.s2 = checksum.s2;
    return 'reached';
  }

  /**
   * SQLite pads a commit to the end of a disk sector by writing its last frame again, bytes and all. One-row updates
   * repeat page and size too, so only equal bytes make a repeat.
   */
  #isRepeat(fd: number, pgno: number, commit: number, offset: number, index: number): boolean {
    if (pgno !== this.#lastPgno || commit !== this.#lastCommit) return false;
    const page = offset + FRAME_HEADER_SIZE;
    const { pageSize } = this.#start;
    if (index > 0) {
      const previous = page - this.#frameSize;
      return equalBytes(chunk, page, chunk, previous, pageSize);
    }
    const before = new Uint8Array(pageSize);
    const at = WAL_HEADER_SIZE + (this.frame - 2) * this.#frameSize + FRAME_HEADER_SIZE;
    // If the frame before can no longer be read it is better taken for a repeat: see above.
    if (readFully(fd, before, pageSize, at) < pageSize) return true;
    return equalBytes(chunk, page, before, 0, pageSize);
  }
}

function equalBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
