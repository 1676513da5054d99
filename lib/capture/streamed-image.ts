/**
 * A consistent image that is handed on while it is read: no copy of the database anywhere.
 *
 * A WAL database. The image is the state at a horizon H0, read before the first page. Pages in frames up to H0 come from
 * the WAL, the rest from the database file. A checkpoint may meanwhile write newer pages under our reads. Whether it did
 * to any page that was handed on is known at the end: every page that was committed after H0 (all of them are followed)
 * and was read from the file is read again. If it still has the bytes that were handed on, and these are none of the
 * versions committed after H0, then no checkpoint had written it when it was read first, whole or in part, and it was
 * H0's. If any page fails, the image is spoilt, and the caller falls back to one that bears checkpoints (image.ts) at the
 * price of a copy on disk.
 *
 * A database without `-wal` is handed on if, at the end, nothing has moved.
 *
 * Commits after H0 are gathered meanwhile; they are the batch that follows the image.
 */

import { performance } from 'node:perf_hooks';
import { throwIfAborted } from '../errors.js';
import { Crc64 } from '../ltx/crc64.js';
import { lockPage } from '../sqlite/database.js';
import { readFully, type SourceFiles } from './files.js';
import type { Follower, FrameSink } from './follower.js';
import { sightJournal } from './hot-journal.js';
import {
  assertClosed,
  assertUnmoved,
  catchUp,
  databaseSize,
  ImageSpoilt,
  readDatabaseHeader,
  settledStamp,
  sizeAtHorizon,
  sizeBeyondDoubt,
} from './image.js';
import type { PageSet } from './page-set.js';
import type { PageSums } from './page-sums.js';
import type { QuietState } from './wal-lifetimes.js';

export interface StreamRequest {
  readonly files: SourceFiles;
  readonly pageSize: number;
  /** For the pages in frames up to H0; emptied. */
  readonly frames: PageSet;
  /** Receives what is committed after H0. */
  readonly sink: FrameSink;
  /** Receives the sums of the image. Emptied first. */
  readonly sums: PageSums;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((bytes: number, totalBytes: number) => void) | undefined;
}

/** Consecutive pages; the lock page, which no image holds, may be among them and is to be skipped. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
  /** `count` pages, the reader's own memory: valid until the next run is asked for. */
  readonly bytes: Uint8Array;
}

export interface StreamedImage {
  readonly pageCount: number;
  /** All pages, ascending. Ends without an error only if the image is proven; throws ImageSpoilt otherwise. */
  readonly runs: AsyncGenerator<PageRun, QuietState | undefined>;
}

const CHUNK_BYTES = 1024 * 1024;
/** How long reading may go on before commits are looked for: a WAL must not be restarted twice unseen. */
const FOLLOW_EVERY_MS = 4;

/** Begins an image of the present state; `follower` stands at it, and at what came after it once `runs` has ended. */
export async function beginStreamedImage(request: StreamRequest, follower: Follower): Promise<StreamedImage> {
  const { files, frames, sums } = request;
  files.refresh();
  frames.clear();
  sums.clear();
  return files.hasWal ? streamWal(request, follower) : streamQuiet(request, follower);
}

async function streamWal(request: StreamRequest, follower: Follower): Promise<StreamedImage> {
  const { files, frames, pageSize, sums } = request;
  follower.restart();
  const pageCount = await sizeAtHorizon(request, follower, {
    page: (pgno, bytes, offset) => frames.set(pgno, bytes, offset),
    commit: () => true,
  });
  frames.truncate(pageCount);
  sums.pageCount = pageCount;
  const versions = new Versions(pageSize);
  let hasShrunk = false;
  const sink: FrameSink = {
    page: (pgno, bytes, offset) => {
      if (pgno <= pageCount && !frames.has(pgno)) versions.add(pgno, bytes, offset);
      request.sink.page(pgno, bytes, offset);
    },
    commit: (count) => {
      hasShrunk ||= count < pageCount;
      request.sink.commit(count);
      return true;
    },
  };
  async function* runs(): AsyncGenerator<PageRun, undefined> {
    let followedAt = performance.now();
    for await (const run of readRuns(request, pageCount)) {
      for (let i = 0; i < run.count; i++) {
        const pgno = run.first + i;
        if (frames.has(pgno)) frames.read(pgno, run.bytes, i * pageSize);
        else if (versions.holds(pgno, run.bytes, i * pageSize)) throw new ImageSpoilt(CHECKPOINTED);
        sums.record(pgno, run.bytes, i * pageSize, pageSize);
      }
      yield run;
      if (performance.now() - followedAt > FOLLOW_EVERY_MS) {
        await catchUp(request, follower, sink);
        followedAt = performance.now();
      }
    }
    await sizeBeyondDoubt(request, follower, sink);
    // A checkpoint cuts the file off behind the last page, and no frame says which pages that takes away.
    if (hasShrunk) throw new ImageSpoilt('the database has shrunk while it was being read');
    const page = new Uint8Array(pageSize);
    for (const pgno of versions.pages()) {
      const got = readFully(files.database.fd, page, pageSize, (pgno - 1) * pageSize);
      page.fill(0, got);
      if (versions.holds(pgno, page, 0) || !sums.matches(pgno, page, 0, pageSize))
        throw new ImageSpoilt(CHECKPOINTED);
    }
    frames.clear();
    return undefined;
  }
  return { pageCount, runs: runs() };
}

const CHECKPOINTED = 'a checkpoint wrote pages that were being read';

async function streamQuiet(request: StreamRequest, follower: Follower): Promise<StreamedImage> {
  const { files, pageSize, sums } = request;
  const before = await settledStamp(request);
  const header = readDatabaseHeader(files.database);
  const { pageCount, excess } = databaseSize(files.database, 0);
  if (excess !== undefined) {
    assertUnmoved(files, before, header);
    throw excess;
  }
  const spoilt = 'a rollback journal stands beside it';
  if (sightJournal(files.journalPath).hot !== undefined) throw new ImageSpoilt(spoilt);
  async function* runs(): AsyncGenerator<PageRun, QuietState> {
    for await (const run of readRuns(request, pageCount)) {
      for (let i = 0; i < run.count; i++) sums.record(run.first + i, run.bytes, i * pageSize, pageSize);
      yield run;
    }
    const journal = sightJournal(files.journalPath);
    if (journal.hot !== undefined) throw new ImageSpoilt(spoilt);
    assertUnmoved(files, before, header);
    assertClosed(files, journal);
    follower.restart();
    return { stamp: before, settled: true, journal: undefined };
  }
  return { pageCount, runs: runs() };
}

/** The database file in runs of whole pages; what it is too short for is zeros. */
async function* readRuns(request: StreamRequest, pageCount: number): AsyncGenerator<PageRun> {
  const { files, pageSize, signal, onProgress } = request;
  const bytes = new Uint8Array(CHUNK_BYTES);
  const fit = CHUNK_BYTES / pageSize;
  for (let first = 1; first <= pageCount; first += fit) {
    throwIfAborted(signal, 'the capture');
    const count = Math.min(fit, pageCount - first + 1);
    const got = readFully(files.database.fd, bytes, count * pageSize, (first - 1) * pageSize);
    bytes.fill(0, got, count * pageSize);
    const skipped = lockPage(pageSize);
    if (skipped >= first && skipped < first + count) {
      bytes.fill(0, (skipped - first) * pageSize, (skipped - first + 1) * pageSize);
    }
    yield { first, count, bytes };
    onProgress?.((first + count - 1) * pageSize, pageCount * pageSize);
  }
}

/** Checksums of every version of each page that was committed after H0. */
class Versions {
  readonly #pageSize: number;
  readonly #sums = new Map<number, number[]>();
  readonly #crc = new Crc64();

  constructor(pageSize: number) {
    this.#pageSize = pageSize;
  }

  add(pgno: number, bytes: Uint8Array, offset: number): void {
    this.#crc.reset();
    this.#crc.update(bytes, offset, this.#pageSize);
    const sums = this.#sums.get(pgno);
    if (sums === undefined) this.#sums.set(pgno, [this.#crc.high, this.#crc.low]);
    else sums.push(this.#crc.high, this.#crc.low);
  }

  holds(pgno: number, bytes: Uint8Array, offset: number): boolean {
    const sums = this.#sums.get(pgno);
    if (sums === undefined) return false;
    this.#crc.reset();
    this.#crc.update(bytes, offset, this.#pageSize);
    for (let i = 0; i < sums.length; i += 2) {
      if (sums[i] === this.#crc.high && sums[i + 1] === this.#crc.low) return true;
    }
    return false;
  }

  pages(): IterableIterator<number> {
    return this.#sums.keys();
  }
}
