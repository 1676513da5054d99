/**
 * A consistent image of a whole database while it is being written, without a lock.
 *
 * A WAL database. Frames are laid over what is read from the database file, from the live generation's first frame to a
 * horizon H1 that is read *after* the last read of the file. A checkpoint writes only pages that are in frames of the
 * live generation, so whatever it changed under our reads is laid over, and the image is exactly H1, whether a
 * checkpoint ran or not. Commits are followed between the reads, a few milliseconds apart, so that no generation is
 * missed while a large file is read. Only if the follower finds a gap on the way does it start again, or if there may be
 * somebody whose checkpoints the index does not show (checkpoint-doubt.ts).
 *
 * A database without `-wal` (rollback mode, or a WAL database that everyone has closed). Its file is read as it is, and
 * the image stands if nothing moved: times old enough to show any change, the same times, size and change counter
 * afterwards, no `-wal`. A journal that undoes something is laid over (hot-journal.ts); then the file may move under
 * our reads, but the journal must be the same before and after.
 *
 * It ends: a writer that never pauses prolongs an image by what it commits meanwhile and no more, since frames are
 * read faster than they are written. Starting again is bounded by `ATTEMPTS`; then the image fails with an error that
 * says what was in the way, and the caller decides when to try again.
 *
 * Pages that equal the sums of the last replicated state are left out, so an image after a gap holds what differs.
 */

import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { FormatError, JetliteError, throwIfAborted } from '../errors.js';
import {
  DATABASE_HEADER_SIZE,
  type DatabaseHeader,
  databasePageCount,
  decodeDatabaseHeader,
  lockPage,
} from '../sqlite/database.js';
import {
  type FileStamp,
  isSettled,
  type OpenFile,
  readFully,
  type SourceFiles,
  stampOf,
  stampsEqual,
  statPath,
} from './files.js';
import type { Follower, FrameSink } from './follower.js';
import { type JournalSight, sightJournal, undoRecords } from './hot-journal.js';
import type { WalPair } from './index-trust.js';
import { databaseIsExclusive } from './locks.js';
import type { PageSet } from './page-set.js';
import type { PageSums } from './page-sums.js';
import type { QuietState } from './wal-lifetimes.js';

export interface ImageRequest {
  readonly files: SourceFiles;
  readonly pageSize: number;
  /** Receives the pages that differ from `sums`. Emptied first. */
  readonly set: PageSet;
  /** The state to compare with; a page count of 0 makes the image whole. */
  readonly sums: PageSums;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((bytes: number, totalBytes: number) => void) | undefined;
}

export interface Image {
  /** Size of the database in pages. */
  readonly pageCount: number;
  /** Set for a database without `-wal`: while this stands, the image does. */
  readonly quiet: QuietState | undefined;
}

/** The state moved in a way that spoils the image; trying again may help. */
export class ImageSpoilt extends Error {}

const ATTEMPTS = 12;
/** Times that a horizon is followed to until nothing moves while it is looked at. */
const HORIZON_LOOKS = 16;
const CHUNK_BYTES = 1024 * 1024;
/** How long a half-done change of the WAL may block an image. */
const WAIT_LIMIT_MS = 4000;

/**
 * Takes an image of the database as it is, by whichever of the two ways applies. Afterwards `follower` stands at it.
 * @throws JetliteError CAPTURE if none could be proven; FORMAT or DATABASE if the file is no usable database
 */
export async function takeImage(request: ImageRequest, follower: Follower): Promise<Image> {
  let reason = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    throwIfAborted(request.signal, 'the capture');
    if (attempt > 0) await delay(Math.min(20 * attempt, 200), undefined, { signal: request.signal });
    request.files.refresh();
    request.set.clear();
    try {
      return request.files.hasWal ? await imageWal(request, follower) : await imageQuiet(request, follower);
    } catch (error) {
      if (!(error instanceof ImageSpoilt)) throw error;
      reason = error.message;
    }
  }
  throw new JetliteError(
    'CAPTURE',
    `${request.files.path}: no consistent image in ${ATTEMPTS} attempts: ${reason}`,
    { hint: 'Try again when the database is written less; in WAL mode an image does not need it to pause.' },
  );
}

/**
 * The page size of a database.
 * @returns undefined for one that holds nothing yet: whatever stands beside an empty file, SQLite removes it
 * @throws FormatError if the file is not a database
 */
export function sourcePageSize(files: SourceFiles): number | undefined {
  const journal = files.hasWal ? undefined : sightJournal(files.journalPath).hot?.header;
  // The transaction that creates it may be under way, its first page not written yet.
  if (journal?.initialPageCount === 0 || isBlank(files.database)) return undefined;
  const header = readDatabaseHeader(files.database);
  // A VACUUM that was cut off may have written a header with another page size: the journal has the one to go back to.
  return journal === undefined || journal.pageSize === 0 ? header?.pageSize : journal.pageSize;
}

function isBlank(database: OpenFile): boolean {
  const bytes = new Uint8Array(DATABASE_HEADER_SIZE);
  readFully(database.fd, bytes, DATABASE_HEADER_SIZE, 0);
  return bytes.every((byte) => byte === 0);
}

export function readDatabaseHeader(database: OpenFile): DatabaseHeader | undefined {
  const bytes = new Uint8Array(DATABASE_HEADER_SIZE);
  const got = readFully(database.fd, bytes, DATABASE_HEADER_SIZE, 0);
  return got === 0 ? undefined : decodeDatabaseHeader(bytes.subarray(0, got));
}

async function imageWal(request: ImageRequest, follower: Follower): Promise<Image> {
  const { set } = request;
  follower.restart();
  const sink: FrameSink = {
    page: (pgno, bytes, offset) => set.set(pgno, bytes, offset),
    commit: () => true,
  };
  let pageCount = await sizeAtHorizon(request, follower, sink);
  let next = 1;
  do {
    while (next <= pageCount) {
      next = readPages(request, next, pageCount);
      await catchUp(request, follower, sink);
      pageCount = follower.pageCount || pageCount;
      request.onProgress?.((next - 1) * request.pageSize, pageCount * request.pageSize);
    }
    // The horizon that counts is read after the last read of the database file.
    pageCount = await sizeBeyondDoubt(request, follower, sink);
  } while (next <= pageCount);
  set.truncate(pageCount);
  return { pageCount, quiet: undefined };
}

/**
 * Follows to the horizon of now, and says how many pages the database has there. Where no frame tells it, it is what the
 * file says: read before, so that a commit that changes it is followed.
 */
export async function sizeAtHorizon(
  request: Pick<ImageRequest, 'files' | 'signal'>,
  follower: Follower,
  sink: FrameSink,
): Promise<number> {
  await catchUp(request, follower, sink);
  if (follower.pageCount > 0) return follower.pageCount;
  const size = databaseSize(request.files.database, follower.index?.pageCount ?? 0);
  await catchUp(request, follower, sink);
  if (follower.pageCount > 0) return follower.pageCount;
  if (size.excess !== undefined) {
    // Its header may have been copied, and the pages that it tells of not yet.
    if (
      !isSettled(stampOf(request.files.database)) ||
      (await follower.doubt(pairOf(request.files))) !== undefined
    ) {
      throw new ImageSpoilt(`a checkpoint may be under way: ${size.excess.message}`);
    }
    throw size.excess;
  }
  return size.pageCount;
}

function pairOf({ database, wal, shm }: SourceFiles): WalPair {
  return { database, wal: wal!, shm };
}

/**
 * The same for a horizon that the pages read before are of, whoever ran a checkpoint. Nothing is to be read after it.
 * Throws ImageSpoilt if there is none.
 */
export async function sizeBeyondDoubt(
  request: Pick<ImageRequest, 'files' | 'signal'>,
  follower: Follower,
  sink: FrameSink,
): Promise<number> {
  for (let looks = 0; looks < HORIZON_LOOKS; looks++) {
    if (looks > 0) await delay(looks);
    const pageCount = await sizeAtHorizon(request, follower, sink);
    const doubt = await follower.doubt(pairOf(request.files));
    if (doubt === undefined) return pageCount;
    if (doubt !== 'again') throw new ImageSpoilt(doubt.why);
  }
  throw new ImageSpoilt('its index changes faster than it can be looked at');
}

/** Follows to the horizon of now. Throws ImageSpoilt if that cannot be done with proof. */
export async function catchUp(
  request: Pick<ImageRequest, 'files' | 'signal'>,
  follower: Follower,
  sink: FrameSink,
): Promise<void> {
  const deadline = performance.now() + WAIT_LIMIT_MS;
  for (;;) {
    throwIfAborted(request.signal, 'the capture');
    const change = request.files.refresh();
    const { database, wal, shm } = request.files;
    if (change.databaseReplaced || change.walRetired || wal === undefined) {
      throw new ImageSpoilt('the database was closed, reopened or replaced meanwhile');
    }
    const outcome = await follower.poll({ database, wal, shm }, sink);
    if (outcome.state === 'gap') throw new ImageSpoilt(outcome.reason);
    if (shm === undefined && statPath(request.files.shmPath) !== undefined) {
      throw new ImageSpoilt('an index came to stand beside the WAL meanwhile');
    }
    if (outcome.state === 'current') return;
    if (outcome.state === 'wait') {
      if (performance.now() > deadline) throw new ImageSpoilt(outcome.why);
      await delay(2);
    }
  }
}

async function imageQuiet(request: ImageRequest, follower: Follower): Promise<Image> {
  const { files, set, sums, pageSize } = request;
  const journal = sightJournal(files.journalPath);
  const before = journal.hot === undefined ? await settledStamp(request) : stampOf(files.database);
  const header = readDatabaseHeader(files.database);
  const size = databaseSize(files.database, 0);
  if (journal.hot === undefined && size.excess !== undefined) {
    assertUnmoved(files, before, header);
    throw size.excess;
  }
  const pageCount = journal.hot?.header.initialPageCount ?? size.pageCount;
  if (journal.hot !== undefined) assertUndoable(request, before, journal.hot);
  let next = 1;
  while (next <= pageCount) {
    next = readPages(request, next, pageCount);
    request.onProgress?.((next - 1) * pageSize, pageCount * pageSize);
    await turn();
    throwIfAborted(request.signal, 'the capture');
  }
  if (journal.hot !== undefined) {
    if (journal.hot.header.pageSize !== 0 && journal.hot.header.pageSize !== pageSize) {
      throw new ImageSpoilt(`its journal has pages of ${journal.hot.header.pageSize} bytes, not ${pageSize}`);
    }
    undoRecords(files.journalPath, pageSize, (pgno, bytes, offset) => {
      if (sums.matches(pgno, bytes, offset, pageSize)) set.delete(pgno);
      else set.set(pgno, bytes, offset);
    });
  }
  const journalNow = sightJournal(files.journalPath);
  if (journalNow.hot?.identity !== journal.hot?.identity) {
    throw new ImageSpoilt('a transaction began or ended while it was being read');
  }
  if (journal.hot === undefined) assertUnmoved(files, before, header);
  assertClosed(files, journalNow);
  follower.restart();
  return {
    pageCount,
    quiet: { stamp: before, settled: journal.hot === undefined, journal: journal.hot?.identity },
  };
}

/** The file is as it was when `before` and `header` were read. */
export function assertUnmoved(
  files: SourceFiles,
  before: FileStamp,
  header: DatabaseHeader | undefined,
): void {
  const counter = readDatabaseHeader(files.database)?.changeCounter;
  if (counter !== header?.changeCounter || !stampsEqual(before, stampOf(files.database))) {
    throw new ImageSpoilt('it was written while it was being read');
  }
}

/** A journal leads back to no more pages than the file holds and the journal has kept. */
function assertUndoable(
  { files, pageSize }: ImageRequest,
  { size }: FileStamp,
  hot: NonNullable<JournalSight['hot']>,
): void {
  const limit = Math.ceil(Number(size) / pageSize) + Math.floor(hot.size / (pageSize + 8));
  const found = hot.header.initialPageCount;
  if (found <= limit) return;
  // Once the transaction has ended the file may be cut.
  if (sightJournal(files.journalPath).hot?.identity !== hot.identity) {
    throw new ImageSpoilt('a transaction ended while it was looked at');
  }
  const problem = `expected a database of ${limit} pages at most, all that file and journal hold, found ${found}`;
  throw new FormatError('its journal', problem);
}

/** Nobody has begun to write it in a way that the file's own state does not show. */
export function assertClosed(files: SourceFiles, journal: JournalSight): void {
  // With journal_mode MEMORY or OFF a transaction's pages can be in the database before it commits. With a -wal at its
  // path they get there only through that, and with a journal only if that was written first, or if they were committed:
  // the journal is done away with after the last of them was written.
  const isKept = files.wal !== undefined || journal.hot !== undefined;
  const isCommitted = journal.mtimeNs !== undefined && journal.mtimeNs >= stampOf(files.database).mtimeNs;
  if (!isKept && !isCommitted && databaseIsExclusive(files.database)) {
    throw new ImageSpoilt('a transaction without a journal is under way');
  }
  const change = files.refresh();
  if (change.databaseReplaced || files.hasWal) {
    throw new ImageSpoilt('the database was opened or replaced meanwhile');
  }
}

/** The database's times once they are old enough to show any later change. */
export async function settledStamp(request: Pick<ImageRequest, 'files' | 'signal'>): Promise<FileStamp> {
  for (let waits = 0; waits < 20; waits++) {
    const stamp = stampOf(request.files.database);
    if (isSettled(stamp)) return stamp;
    await delay(10, undefined, { signal: request.signal });
  }
  throw new ImageSpoilt('the database is being written all the time');
}

const chunk = new Uint8Array(CHUNK_BYTES);

/** Puts the pages of one chunk that differ and that no frame has given yet; returns the next page to read. */
function readPages(request: ImageRequest, first: number, pageCount: number): number {
  const { files, pageSize, set, sums } = request;
  const pages = Math.min(Math.floor(CHUNK_BYTES / pageSize), pageCount - first + 1);
  const got = readFully(files.database.fd, chunk, pages * pageSize, (first - 1) * pageSize);
  // A file may be shorter than its database: what was never written is zeros.
  if (got < pages * pageSize) chunk.fill(0, got, pages * pageSize);
  const skipped = lockPage(pageSize);
  for (let i = 0; i < pages; i++) {
    const pgno = first + i;
    if (pgno === skipped || set.has(pgno) || sums.matches(pgno, chunk, i * pageSize, pageSize)) continue;
    set.set(pgno, chunk, i * pageSize);
  }
  return first + pages;
}

export interface DatabaseSize {
  readonly pageCount: number;
  /** Set if the header claims more pages than the file holds: SQLite opens no such database. */
  readonly excess: FormatError | undefined;
}

/**
 * Size of a database where no frame tells it: as its header says, which every checkpoint brings up to date; if that is not
 * valid, as an index says; or else as long as the file is.
 */
export function databaseSize(database: OpenFile, indexPageCount: number): DatabaseSize {
  const header = readDatabaseHeader(database);
  if (header === undefined) return { pageCount: 0, excess: undefined };
  const fileSize = Number(stampOf(database).size);
  const held = Math.ceil(fileSize / header.pageSize);
  const isValid = header.pageCount > 0 && header.changeCounter === header.versionValidFor;
  const pageCount = isValid || indexPageCount === 0 ? databasePageCount(header, fileSize) : indexPageCount;
  if (pageCount <= held) return { pageCount, excess: undefined };
  const problem = `expected ${held} pages at most, all that the file holds, found ${pageCount}`;
  const hint = 'The database was cut short and SQLite refuses it: restore it from an earlier state.';
  return { pageCount, excess: new FormatError('the database header', problem, { hint }) };
}
