/** The files of fixtures/sqlite, and plain models of what SQLite does with them. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { decodeDatabaseHeader } from '../../lib/sqlite/database.js';
import { type JournalEnd, JournalScanner } from '../../lib/sqlite/journal.js';
import { decodeWalHeader, FrameScanner, WAL_HEADER_SIZE, WalChecksum } from '../../lib/sqlite/wal.js';

/** Seen from dist/test/sqlite; fixtures stay where they are kept. */
const FOLDER = new URL('../../../fixtures/sqlite/', import.meta.url);

export function fixture(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(name, FOLDER)));
}

/** What the maker script saw SQLite make of a file. */
export interface Expected {
  pageSize: number;
  pageCount: number;
  /** Of the database once SQLite had recovered and checkpointed, or rolled back. */
  sha256: string;
  /** Of the database as readers saw it while the writer lived, where that is another one. */
  liveSha256: string;
  superJournal: string;
  hot: boolean;
  maxFrame: number;
  changeCount: number;
  backfill: number;
}

export const expected = JSON.parse(readFileSync(new URL('expected.json', FOLDER), 'utf8')) as Record<
  string,
  Expected
>;

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export interface Replayed {
  database: Uint8Array;
  /** Frames whose chain holds; after them the WAL ends. */
  validFrames: number;
  /** The last of them that ends a commit. */
  committedFrames: number;
  commits: number;
  /** Chain at the last commit. */
  checksum: WalChecksum;
}

/** What a checkpoint of all committed frames makes of a database. */
export function replayWal(database: Uint8Array, wal: Uint8Array): Replayed {
  const { pageSize, salt1, salt2, checksum1, checksum2, bigEndianChecksum } = decodeWalHeader(wal);
  const scanner = new FrameScanner(
    pageSize,
    salt1,
    salt2,
    new WalChecksum(bigEndianChecksum, checksum1, checksum2),
  );
  const pages = new Map<number, Uint8Array>();
  const pending = new Map<number, Uint8Array>();
  const replayed: Replayed = {
    database,
    validFrames: 0,
    committedFrames: 0,
    commits: 0,
    checksum: scanner.checksum.clone(),
  };
  let pageCount = 0;
  for (let at = WAL_HEADER_SIZE; at + scanner.frameSize <= wal.length; at += scanner.frameSize) {
    if (!scanner.next(wal, at)) break;
    replayed.validFrames++;
    pending.set(scanner.pgno, wal.subarray(at + 24, at + scanner.frameSize));
    if (scanner.commit === 0) continue;
    for (const [pgno, page] of pending) pages.set(pgno, page);
    pending.clear();
    pageCount = scanner.commit;
    replayed.commits++;
    replayed.committedFrames = replayed.validFrames;
    replayed.checksum = scanner.checksum.clone();
  }
  if (pageCount === 0) return replayed;
  replayed.database = new Uint8Array(pageCount * pageSize);
  replayed.database.set(database.subarray(0, replayed.database.length));
  for (const [pgno, page] of pages) if (pgno <= pageCount) replayed.database.set(page, (pgno - 1) * pageSize);
  return replayed;
}

export interface Undone {
  database: Uint8Array;
  records: number;
  segments: number;
  end: JournalEnd | undefined;
}

/** What rolling a hot journal back makes of a database. */
export function undoJournal(database: Uint8Array, journal: Uint8Array): Undone {
  const scanner = new JournalScanner(journal.length, decodeDatabaseHeader(database).pageSize);
  const undone: Undone = { database, records: 0, segments: 0, end: undefined };
  let result = database;
  for (;;) {
    const at = scanner.position;
    const piece = scanner.next(journal, at);
    if (piece === 'end') break;
    const { pageSize, initialPageCount } = scanner.header!;
    if (piece === 'header' && undone.segments++ === 0) {
      result = new Uint8Array(initialPageCount * pageSize);
      result.set(database.subarray(0, result.length));
    } else if (piece === 'record') {
      undone.records++;
      result.set(journal.subarray(at + 4, at + 4 + pageSize), (scanner.pgno - 1) * pageSize);
    }
  }
  return { ...undone, database: result, end: scanner.end };
}
