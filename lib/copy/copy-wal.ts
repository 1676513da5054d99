/**
 * The `-wal` of a live copy, as its only writer appends to it.
 *
 * 1. Frames are appended behind the last commit and never anywhere else: what readers were promised stays where it is.
 *    What lies behind the last commit (a batch that was cut off) is overwritten, never cut off: a reader may be scanning it.
 * 2. The frame with the commit mark is written last, when everything before it is in the file; a header with the first
 *    frames, in one go.
 * 3. The file at the path is believed to be ours only as long as it is the one that is held open, is long enough and
 *    begins with our header.
 */

import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { isSameFile, readFully, statPath } from '../capture/files.js';
import { createHandle, type OpenFile, openHandle, releaseHandle } from '../capture/handles.js';
import {
  decodeWalHeader,
  FRAME_HEADER_SIZE,
  FrameScanner,
  WAL_HEADER_SIZE,
  WalChecksum,
  type WalHeader,
} from '../sqlite/wal.js';
import { encodeWalHeader, FrameEncoder } from '../sqlite/wal-encoder.js';

/** Where a commit ends: generation, frame and the checksum chain there. Frame 0: no commit, the other numbers say nothing. */
export interface WalEnd {
  readonly salt1: number;
  readonly salt2: number;
  readonly frame: number;
  readonly checksum1: number;
  readonly checksum2: number;
}

export const NO_FRAMES: WalEnd = { salt1: 0, salt2: 0, frame: 0, checksum1: 0, checksum2: 0 };

export function isSameEnd(a: WalEnd, b: WalEnd): boolean {
  if (a.frame === 0 || b.frame === 0) return a.frame === b.frame;
  return (
    a.frame === b.frame &&
    a.salt1 === b.salt1 &&
    a.salt2 === b.salt2 &&
    a.checksum1 === b.checksum1 &&
    a.checksum2 === b.checksum2
  );
}

const BUFFER_SIZE = 1024 * 1024;

export class CopyWal {
  readonly path: string;
  readonly pageSize: number;
  /** The last commit. */
  end: WalEnd = NO_FRAMES;
  /** Checksums at the end of each commit of this generation, by frame. */
  readonly #commits = new Map<number, readonly [number, number]>();
  #file: OpenFile;
  #header: Uint8Array = new Uint8Array(WAL_HEADER_SIZE);
  #checkpointSequence = 0;

  /** The newest committed frame that holds page 1, which is asked for with every batch; 0 if none does. */
  #pageOneFrame = 0;

  /** Size of the database after the last commit that `scan` found, pages; 0 if it found none. */
  pageCount = 0;

  /** Opens the file, or makes an empty one with the mode given; what is in it counts once `scan` was called. */
  constructor(path: string, pageSize: number, mode: number) {
    this.path = path;
    this.pageSize = pageSize;
    this.#file = openOrCreate(path, mode);
  }

  get fd(): number {
    return this.#file.fd;
  }

  /** Bytes up to the end of the last commit. */
  get size(): number {
    return this.#offsetOf(this.end.frame);
  }

  /** The checksums at the end of the commit of this generation that ends at `frame`, if one does. */
  commitAt(frame: number): readonly [number, number] | undefined {
    return this.#commits.get(frame);
  }

  /** Whether the path still names the file held, as long and with the header that this object gave it. */
  isInPlace(): boolean {
    const named = statPath(this.path);
    if (named === undefined || !isSameFile(named, this.#file)) return false;
    if (this.end.frame === 0) return true;
    if (named.size < BigInt(this.size)) return false;
    const found = new Uint8Array(WAL_HEADER_SIZE);
    readFully(this.#file.fd, found, WAL_HEADER_SIZE, 0);
    return Buffer.compare(found, this.#header) === 0;
  }

  /** Opens what the path names now; whether that is another file. */
  reopen(mode: number): boolean {
    const before = this.#file;
    this.#file = openOrCreate(this.path, mode);
    releaseHandle(before);
    return !isSameFile(before, this.#file);
  }

  /** Reads the chain from the beginning: `end` is then the last commit of whatever generation the file holds. */
  scan(): WalEnd {
    this.#commits.clear();
    this.end = NO_FRAMES;
    this.#pageOneFrame = 0;
    this.pageCount = 0;
    const header = this.#readHeader();
    if (header === undefined || header.pageSize !== this.pageSize) return this.end;
    const { salt1, salt2, bigEndianChecksum } = header;
    this.#checkpointSequence = header.checkpointSequence;
    const chain = new WalChecksum(bigEndianChecksum, header.checksum1, header.checksum2);
    const scanner = new FrameScanner(this.pageSize, salt1, salt2, chain);
    const frames = Math.max(1, Math.floor(BUFFER_SIZE / scanner.frameSize));
    const buffer = new Uint8Array(frames * scanner.frameSize);
    let pageOneFrame = 0;
    for (let frame = 0; ; ) {
      const got = readFully(this.fd, buffer, buffer.length, this.#offsetOf(frame));
      for (let at = 0; at + scanner.frameSize <= got; at += scanner.frameSize) {
        if (!scanner.next(buffer, at)) return this.end;
        frame++;
        if (scanner.pgno === 1) pageOneFrame = frame;
        if (scanner.commit === 0) continue;
        this.#pageOneFrame = pageOneFrame;
        const { s1: checksum1, s2: checksum2 } = chain;
        this.#commits.set(frame, [checksum1, checksum2]);
        this.end = { salt1, salt2, frame, checksum1, checksum2 };
        this.pageCount = scanner.commit;
      }
      if (got < buffer.length) return this.end;
    }
  }

  /** The newest committed version of a page, copied out; undefined if no frame holds one. */
  page(pgno: number): Uint8Array | undefined {
    const frame = pgno === 1 ? this.#pageOneFrame : this.#newestFrame(pgno);
    if (frame === 0) return undefined;
    const page = new Uint8Array(this.pageSize);
    readFully(this.fd, page, page.length, this.#offsetOf(frame - 1) + FRAME_HEADER_SIZE);
    return page;
  }

  #newestFrame(pgno: number): number {
    const head = Buffer.alloc(4);
    let { frame } = this.end;
    while (frame > 0) {
      if (readFully(this.fd, head, 4, this.#offsetOf(frame - 1)) === 4 && head.readUInt32BE(0) === pgno)
        break;
      frame--;
    }
    return frame;
  }

  /** Forgets all frames: the next commit begins a new generation at the start of the file. */
  startOver(): void {
    this.end = NO_FRAMES;
    this.#commits.clear();
    this.#pageOneFrame = 0;
  }

  /** A commit to be, behind the last one. At most one at a time; one that is not finished leaves nothing. */
  begin(): WalCommit {
    const { end } = this;
    let head: Uint8Array | undefined;
    let chain: WalChecksum;
    let { salt1, salt2 } = end;
    if (end.frame === 0) {
      const salts = randomBytes(8);
      [salt1, salt2] = [salts.readUInt32BE(0), salts.readUInt32BE(4)];
      head = new Uint8Array(WAL_HEADER_SIZE);
      this.#checkpointSequence = (this.#checkpointSequence + 1) >>> 0;
      const checkpointSequence = this.#checkpointSequence;
      const { pageSize } = this;
      chain = encodeWalHeader({ bigEndianChecksum: false, pageSize, checkpointSequence, salt1, salt2 }, head);
    } else {
      chain = new WalChecksum(this.#bigEndian, end.checksum1, end.checksum2);
    }
    const start = { frame: end.frame, offset: head === undefined ? this.size : 0, salt1, salt2, head, chain };
    return new WalCommit(this.fd, this.pageSize, start, (done, pageOneFrame) => {
      if (head !== undefined) this.#header = head;
      this.end = done;
      if (pageOneFrame > 0) this.#pageOneFrame = pageOneFrame;
      this.#commits.set(done.frame, [done.checksum1, done.checksum2]);
    });
  }

  close(): void {
    releaseHandle(this.#file);
  }

  get #bigEndian(): boolean {
    return (this.#header[3] & 1) === 1;
  }

  #offsetOf(frame: number): number {
    return frame === 0 ? WAL_HEADER_SIZE : WAL_HEADER_SIZE + frame * (FRAME_HEADER_SIZE + this.pageSize);
  }

  /** Undefined if there is none that SQLite would use. */
  #readHeader(): WalHeader | undefined {
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    if (readFully(this.fd, bytes, WAL_HEADER_SIZE, 0) < WAL_HEADER_SIZE) return undefined;
    try {
      const header = decodeWalHeader(bytes);
      this.#header = bytes;
      return header;
    } catch {
      return undefined;
    }
  }
}

interface CommitStart {
  /** Frames before it. */
  readonly frame: number;
  /** Where its first byte goes. */
  readonly offset: number;
  readonly salt1: number;
  readonly salt2: number;
  /** The WAL header, if these are the first frames. */
  readonly head: Uint8Array | undefined;
  readonly chain: WalChecksum;
}

/** Frames on their way into the WAL. Memory is bounded: all but the last megabyte are in the file already. */
export class WalCommit {
  readonly #fd: number;
  readonly #encoder: FrameEncoder;
  readonly #salts: Pick<WalEnd, 'salt1' | 'salt2'>;
  readonly #done: (end: WalEnd, pageOneFrame: number) => void;
  readonly #buffer: Uint8Array;
  #offset: number;
  #length = 0;
  #frame: number;
  /** Where in the buffer the last page added stands; its frame is sealed when it is known whether it is the last. */
  #openAt = -1;
  #openPgno = 0;
  /** Which of the frames holds page 1; 0: none. */
  #pageOneFrame = 0;

  constructor(
    fd: number,
    pageSize: number,
    start: CommitStart,
    done: (end: WalEnd, pageOneFrame: number) => void,
  ) {
    this.#fd = fd;
    this.#encoder = new FrameEncoder(pageSize, start.salt1, start.salt2, start.chain);
    this.#salts = { salt1: start.salt1, salt2: start.salt2 };
    this.#done = done;
    this.#buffer = new Uint8Array(WAL_HEADER_SIZE + Math.max(BUFFER_SIZE, 2 * this.#encoder.frameSize));
    this.#offset = start.offset;
    this.#frame = start.frame;
    if (start.head !== undefined) {
      this.#buffer.set(start.head);
      this.#length = WAL_HEADER_SIZE;
    }
  }

  /** Whether no page was added. */
  get isEmpty(): boolean {
    return this.#openAt === -1;
  }

  /** Takes a copy of a page; the copy, which may be changed until the next call. */
  add(pgno: number, page: Uint8Array): Uint8Array {
    if (!this.isEmpty) this.#seal(0);
    const { frameSize } = this.#encoder;
    if (this.#length + frameSize > this.#buffer.length) this.#write();
    this.#openAt = this.#length;
    this.#openPgno = pgno;
    if (pgno === 1) this.#pageOneFrame = this.#frame + 1;
    this.#length += frameSize;
    const copy = this.#buffer.subarray(this.#openAt + FRAME_HEADER_SIZE, this.#length);
    copy.set(page);
    return copy;
  }

  /**
   * Marks the last page added as the commit's end and writes what is left. `before` is told where the commit will end
   * when everything but that frame may be in the file, and before it is.
   */
  finish(pageCount: number, before: (end: WalEnd) => void): void {
    this.#seal(pageCount);
    const { s1: checksum1, s2: checksum2 } = this.#encoder.checksum;
    const end = { ...this.#salts, frame: this.#frame, checksum1, checksum2 };
    before(end);
    this.#write();
    this.#done(end, this.#pageOneFrame);
  }

  #seal(commit: number): void {
    this.#encoder.seal(this.#buffer, this.#openAt, this.#openPgno, commit);
    this.#frame++;
  }

  #write(): void {
    for (let at = 0; at < this.#length; ) {
      at += fs.writeSync(this.#fd, this.#buffer, at, this.#length - at, this.#offset + at);
    }
    this.#offset += this.#length;
    this.#length = 0;
  }
}

function openOrCreate(path: string, mode: number): OpenFile {
  try {
    return openHandle(path, 'write');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  try {
    return createHandle(path, mode);
  } catch (error) {
    // A reader made it meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return openHandle(path, 'write');
  }
}
