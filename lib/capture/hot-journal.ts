/**
 * The rollback journal beside a database, and what it undoes.
 *
 * Invariants:
 * 1. A page of the database is changed only after its old content is in the journal. So as long as one and the same
 *    journal (inode and nonce) stands from before the first read of the database until after the last read of the
 *    journal, its records laid over what was read give the state before that transaction: the last commit's. That is so
 *    for a journal left by a crash and for one of a transaction under way.
 * 2. A journal without a valid header, or one that names a super-journal which is gone, undoes nothing: its transaction
 *    was committed.
 * 3. Nothing is rolled back here: the journal and the database are only read.
 */

import fs from 'node:fs';
import {
  decodeJournalHeader,
  decodeSuperJournalName,
  type JournalHeader,
  JournalScanner,
  SUPER_JOURNAL_TAIL_SIZE,
} from '../sqlite/journal.js';
import { readFully } from './files.js';

/** What stands at the journal's path. */
export interface JournalSight {
  /** When it was last written; undefined if there is no file. */
  readonly mtimeNs: bigint | undefined;
  /** Set if it undoes something; equal identities mean the same journal of the same transaction. Size in bytes. */
  readonly hot:
    | { readonly identity: string; readonly header: JournalHeader; readonly size: number }
    | undefined;
}

const NOTHING: JournalSight = { mtimeNs: undefined, hot: undefined };
const CHUNK_BYTES = 1024 * 1024;
/** A header fills a sector, which is 64 KiB at most. */
const HEAD_BYTES = 512;

/** Looks at the journal without keeping it open: SQLite takes no locks on it that closing could drop. */
export function sightJournal(path: string): JournalSight {
  return withJournal(path, NOTHING, (fd, stat) => {
    const head = new Uint8Array(HEAD_BYTES);
    const got = readFully(fd, head, HEAD_BYTES, 0);
    const header = decodeJournalHeader(head.subarray(0, got));
    const { mtimeNs } = stat;
    if (header === undefined) return { mtimeNs, hot: undefined };
    const size = Number(stat.size);
    const tail = new Uint8Array(Math.min(size, SUPER_JOURNAL_TAIL_SIZE));
    const tailGot = readFully(fd, tail, tail.length, size - tail.length);
    const superJournal = decodeSuperJournalName(tail.subarray(0, tailGot));
    if (superJournal !== undefined && !fs.existsSync(superJournal)) return { mtimeNs, hot: undefined };
    return { mtimeNs, hot: { identity: `${stat.dev}:${stat.ino}:${header.nonce}`, header, size } };
  });
}

/**
 * Calls `visit` with the old content of each page that the journal at `path` recorded.
 * @returns false if the journal is not there any more
 */
export function undoRecords(
  path: string,
  databasePageSize: number,
  visit: (pgno: number, bytes: Uint8Array, offset: number) => void,
): boolean {
  return withJournal(path, false, (fd, stat) => {
    const scanner = new JournalScanner(Number(stat.size), databasePageSize);
    const chunk = new Uint8Array(CHUNK_BYTES);
    let start = 0;
    let length = 0;
    while (scanner.need > 0) {
      if (scanner.position < start || scanner.position + scanner.need > start + length) {
        start = scanner.position;
        length = readFully(fd, chunk, CHUNK_BYTES, start);
        // The file was cut while it was being read; whether that matters the second look at it will tell.
        if (length < scanner.need) return false;
      }
      const offset = scanner.position - start;
      if (scanner.next(chunk, offset) === 'record') visit(scanner.pgno, chunk, offset + 4);
    }
    return true;
  });
}

function withJournal<T>(path: string, absent: T, use: (fd: number, stat: fs.BigIntStats) => T): T {
  let fd: number;
  try {
    fd = fs.openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return absent;
    throw error;
  }
  try {
    return use(fd, fs.fstatSync(fd, { bigint: true }));
  } finally {
    fs.closeSync(fd);
  }
}
