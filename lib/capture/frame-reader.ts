/**
 * Reads frames of one generation in bounded chunks, carrying the checksum chain on.
 *
 * A reader stands behind a frame. Each frame it hands out is proven by the chain, so whatever the file's writer does
 * meanwhile, what is handed out is what was once written as that frame. Memory: one chunk, whatever the WAL's size.
 *
 * The exception is asked for by whoever knows that an index makes all frames up to its last one commits: frames that
 * SQLite wrote without salts and checksum (lib/sqlite/wal.ts). They are handed out unproven, `unsummed` says so, and so
 * is the first of the chain that begins anew behind them.
 */

import { setImmediate as turn } from 'node:timers/promises';
import {
  decodeFrameHeader,
  FRAME_HEADER_SIZE,
  type FrameHeader,
  FrameScanner,
  isUnsummedFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
  type WalHeader,
} from '../sqlite/wal.js';
import { type OpenFile, readFully, stampOf } from './files.js';

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

/** Whether a position is in the generation that a WAL header begins. */
export function isGeneration(position: ChainPosition, wal: WalHeader): boolean {
  return position.salt1 === wal.salt1 && position.salt2 === wal.salt2;
}

/** What is done with a frame; false stops the reading behind it. */
export type FrameVisitor = (pgno: number, commit: number, chunk: Uint8Array, pageOffset: number) => boolean;

const CHUNK_BYTES = 1024 * 1024;
/** Chunks read before the event loop gets its turn. */
const CHUNKS_A_TURN = 8;
/** One for all readers: reading is synchronous, and chunks are never handed to anyone who keeps them. */
const chunk = new Uint8Array(CHUNK_BYTES);

export class FrameReader {
  /** Frames read so far; the next one is `frame + 1`. */
  frame: number;
  /** Commits read since the reader was made, repeats left out. */
  commits = 0;
  /**
   * Commit frames that repeat the frame before, bytes and all: padding to a disk sector, which the index does not count,
   * or a commit that changed nothing, which it does.
   */
  repeats = 0;
  /** Whether a frame without a checksum was handed out. */
  unsummed = false;
  readonly #start: ChainPosition;
  readonly #scanner: FrameScanner;
  readonly #frameSize: number;
  #pgno = 0;
  #commit = 0;
  #lastPgno = 0;
  #lastCommit = 0;
  #lastUnsummed = false;
  #chunksRead = 0;

  constructor(position: ChainPosition) {
    this.#start = position;
    this.frame = position.frame;
    const checksum = new WalChecksum(position.bigEndianChecksum, position.checksum1, position.checksum2);
    this.#scanner = new FrameScanner(position.pageSize, position.salt1, position.salt2, checksum);
    this.#frameSize = FRAME_HEADER_SIZE + position.pageSize;
  }

  /** Where the reader stands now. */
  get position(): ChainPosition {
    const { frame, checksum1, checksum2 } = this;
    return { ...this.#start, frame, checksum1, checksum2 };
  }

  get checksum1(): number {
    return this.#scanner.checksum.s1;
  }

  get checksum2(): number {
    return this.#scanner.checksum.s2;
  }

  /** Whether the last frame has this checksum. After one without any, the chain goes on from whatever it is said to be. */
  endsWith(checksum1: number, checksum2: number): boolean {
    const { checksum } = this.#scanner;
    if (this.#lastUnsummed) {
      checksum.s1 = checksum1;
      checksum.s2 = checksum2;
    }
    return checksum.s1 === checksum1 && checksum.s2 === checksum2;
  }

  /**
   * Reads up to frame `target` (Infinity: as far as the chain holds), yielding to the event loop now and then.
   * @param allCommitted frames without a checksum are taken, too
   * @returns 'reached' the target, 'stopped' by the visitor, 'broken': the next frame is not (or no longer, or not yet) a
   * valid one
   */
  async read(
    fd: number,
    target: number,
    visit: FrameVisitor,
    allCommitted = false,
  ): Promise<'reached' | 'stopped' | 'broken'> {
    for (;;) {
      const state = this.#readChunk(fd, target, visit, allCommitted);
      if (state !== 'chunk') return state;
      if (++this.#chunksRead % CHUNKS_A_TURN === 0) await turn();
    }
  }

  #readChunk(
    fd: number,
    target: number,
    visit: FrameVisitor,
    allCommitted: boolean,
  ): 'reached' | 'stopped' | 'chunk' | 'broken' {
    if (this.frame >= target) return 'reached';
    const frameSize = this.#frameSize;
    const fit = Math.max(1, Math.floor(CHUNK_BYTES / frameSize));
    const wanted = Math.min(fit, target - this.frame);
    const at = WAL_HEADER_SIZE + this.frame * frameSize;
    const whole = Math.floor(readFully(fd, chunk, wanted * frameSize, at) / frameSize);
    for (let i = 0; i < whole; i++) {
      const offset = i * frameSize;
      if (!this.#isNext(offset, allCommitted)) return 'broken';
      this.frame++;
      if (this.#commit !== 0) {
        if (this.#isRepeat(fd, offset, i)) this.repeats++;
        else this.commits++;
      }
      this.#lastPgno = this.#pgno;
      this.#lastCommit = this.#commit;
      if (!visit(this.#pgno, this.#commit, chunk, offset + FRAME_HEADER_SIZE)) return 'stopped';
    }
    if (this.frame >= target) return 'reached';
    return whole === wanted ? 'chunk' : 'broken';
  }

  #isNext(offset: number, allCommitted: boolean): boolean {
    const scanner = this.#scanner;
    if (scanner.next(chunk, offset)) {
      this.#pgno = scanner.pgno;
      this.#commit = scanner.commit;
      this.#lastUnsummed = false;
      return true;
    }
    if (!allCommitted) return false;
    const header = decodeFrameHeader(chunk, offset);
    const unsummed = isUnsummedFrame(header);
    const { salt1, salt2 } = this.#start;
    if (!unsummed) {
      const begins = header.pgno !== 0 && header.salt1 === salt1 && header.salt2 === salt2;
      if (!this.#lastUnsummed || !begins) return false;
    }
    // SQLite reads the sum to go on from out of the frame before, where there is none; or out of an older one.
    scanner.checksum.s1 = header.checksum1;
    scanner.checksum.s2 = header.checksum2;
    this.#pgno = header.pgno;
    this.#commit = header.commit;
    this.#lastUnsummed = unsummed;
    this.unsummed = true;
    return true;
  }

  /** One-row updates repeat page and size too, so only equal bytes make a repeat. */
  #isRepeat(fd: number, offset: number, index: number): boolean {
    const { pageSize } = this.#start;
    const page = offset + FRAME_HEADER_SIZE;
    if (index > 0) {
      if (this.#pgno !== this.#lastPgno || this.#commit !== this.#lastCommit) return false;
      return equalBytes(chunk, page, chunk, page - this.#frameSize, pageSize);
    }
    if (this.frame === 1) return false;
    const before = new Uint8Array(this.#frameSize);
    const at = WAL_HEADER_SIZE + (this.frame - 2) * this.#frameSize;
    // A frame whose predecessor can no longer be read may be a repeat.
    if (readFully(fd, before, this.#frameSize, at) < this.#frameSize) return true;
    const header = decodeFrameHeader(before, 0);
    if (header.salt1 !== this.#start.salt1 || header.salt2 !== this.#start.salt2) return true;
    if (this.#pgno !== header.pgno || this.#commit !== header.commit) return false;
    return equalBytes(chunk, page, before, FRAME_HEADER_SIZE, pageSize);
  }
}

function equalBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}

const ignore: FrameVisitor = () => true;

/** How far commits reach behind a position by the checksum chain alone. */
export interface CommitChain {
  /** Behind the last of them, repeats included. */
  readonly chain: ChainPosition;
  /** Before the last of them that repeats nothing. */
  readonly lastBegins: ChainPosition;
  /** How many they are, repeats left out. */
  readonly commits: number;
  readonly repeats: number;
  /** The last frame that the chain holds for. */
  readonly lastFrame: number;
}

export async function lastCommit(wal: OpenFile, position: ChainPosition): Promise<CommitChain> {
  const found = { chain: position, lastBegins: position, commits: 0, repeats: 0 };
  if (position.pageSize === 0) return { ...found, lastFrame: 0 };
  const ahead = new FrameReader(position);
  await ahead.read(wal.fd, Number.POSITIVE_INFINITY, (_pgno, commit) => {
    if (commit === 0) return true;
    if (ahead.commits > found.commits) found.lastBegins = found.chain;
    found.chain = ahead.position;
    found.commits = ahead.commits;
    found.repeats = ahead.repeats;
    return true;
  });
  return { ...found, lastFrame: ahead.frame };
}

/** The reader behind the first `frames` frames of a generation, whose commits it has counted. */
export async function readAhead(
  wal: OpenFile,
  start: ChainPosition,
  frames: number,
): Promise<FrameReader | undefined> {
  const ahead = new FrameReader(start);
  return (await ahead.read(wal.fd, frames, ignore, true)) === 'reached' ? ahead : undefined;
}

/** Whether the frame that a position stands behind is still there, so that nothing behind it was overwritten. */
export function isIntact(wal: OpenFile, position: ChainPosition): boolean {
  const header = position.frame === 0 ? undefined : frameHeader(wal, position, position.frame);
  return (
    header !== undefined &&
    header.salt1 === position.salt1 &&
    header.salt2 === position.salt2 &&
    header.checksum1 === position.checksum1 &&
    header.checksum2 === position.checksum2
  );
}

/**
 * Whether everything that was ever in a position's generation behind it can still be read, the last of it being frame
 * `lastFrame`: neither overwritten, since that goes from the first frame on, nor cut off, as a restart does it where the
 * size of the WAL is limited. Such a cut goes through a frame: the limit is not made for it.
 */
export function isTailWhole(wal: OpenFile, position: ChainPosition, lastFrame: number): boolean {
  const bytes = Number(stampOf(wal).size) - WAL_HEADER_SIZE;
  const frameSize = FRAME_HEADER_SIZE + position.pageSize;
  const isCut = bytes % frameSize !== 0 && lastFrame >= Math.floor(bytes / frameSize);
  return !isCut && isIntact(wal, position);
}

/** Whether a commit may stand behind a position that SQLite wrote, in part at least, without salts and checksums. */
export async function hasUnsummedCommit(wal: OpenFile, position: ChainPosition): Promise<boolean> {
  const ahead = new FrameReader(position);
  const read = await ahead.read(wal.fd, Number.POSITIVE_INFINITY, (_pgno, commit) => commit === 0, true);
  return read === 'stopped' && ahead.unsummed;
}

function frameHeader(wal: OpenFile, position: ChainPosition, frame: number): FrameHeader | undefined {
  const header = new Uint8Array(FRAME_HEADER_SIZE);
  const at = WAL_HEADER_SIZE + (frame - 1) * (FRAME_HEADER_SIZE + position.pageSize);
  const got = readFully(wal.fd, header, FRAME_HEADER_SIZE, at);
  return got < FRAME_HEADER_SIZE ? undefined : decodeFrameHeader(header, 0);
}
