/**
 * Who holds SQLite's locks, as Linux shows them in /proc/locks. Only read: no lock is ever taken or tested.
 *
 * The table shows the locks of processes in one's own PID namespace only. So a lock that is seen is there; one that
 * is not seen proves nothing.
 */

import fs from 'node:fs';
import { type OpenFile, stampOf } from './files.js';

/** Every connection that uses the index keeps a shared lock on this byte of `-shm` (its "dead man's switch"). */
const SHM_PRESENCE_BYTE = 128;
/** A reader of the database file holds a byte from here on shared; a writer of it, all of them for itself. */
const SHARED_FIRST = 0x40000002;

export interface SeenLock {
  /** The process; 0 or less where it is none that is seen from here. */
  readonly pid: number;
  readonly write: boolean;
  readonly start: number;
  readonly end: number;
}

/** Empty where the system does not tell. */
function readTable(): string {
  try {
    return fs.readFileSync('/proc/locks', 'latin1');
  } catch {
    return '';
  }
}

function locksIn(table: string, file: OpenFile): SeenLock[] {
  return parseLocks(table, deviceName(file.dev), file.ino);
}

/** The lines of /proc/locks that concern inode `ino` of device `device` ("fe:00"). A waiting request is no lock. */
export function parseLocks(table: string, device: string, ino: bigint): SeenLock[] {
  const locks: SeenLock[] = [];
  const wanted = `${device}:${ino}`;
  for (const line of table.split('\n')) {
    if (!line.includes(wanted)) continue;
    const fields = line.trim().split(/\s+/);
    // "1: POSIX ADVISORY READ 1234 fe:00:5678 128 128"; a waiting request has "->" after the number.
    if (fields[1] === '->' || fields[5] !== wanted) continue;
    locks.push({
      pid: Number(fields[4]),
      write: fields[3] === 'WRITE',
      start: Number(fields[6]),
      end: fields[7] === 'EOF' ? Number.POSITIVE_INFINITY : Number(fields[7]),
    });
  }
  return locks;
}

export interface LockedFiles {
  readonly database: OpenFile;
  readonly wal: OpenFile;
  readonly shm: OpenFile;
}

/**
 * Whether the index is one that connections use.
 * - `used`: somebody is seen to, so its header governs.
 * - `unused`: somebody holds the database for itself, and whoever does is the only one connected, without using it.
 * - `unknown`: nobody is seen at all.
 */
export function indexUse({ database, wal, shm }: LockedFiles): 'used' | 'unused' | 'unknown' {
  const table = readTable();
  if (locksIn(table, shm).some((lock) => covers(lock, SHM_PRESENCE_BYTE))) return 'used';
  if (!isExclusive(table, database)) return 'unknown';
  // The last to close holds the database for itself, too, but takes the index's name away before it stops using it. It
  // writes nothing to the WAL after that.
  const { links, ctimeNs } = stampOf(shm);
  return links > 0n || stampOf(wal).mtimeNs > ctimeNs ? 'unused' : 'unknown';
}

/** Whether somebody is seen to hold the database for itself: to write pages to it, or in exclusive locking mode. */
export function databaseIsExclusive(database: OpenFile): boolean {
  return isExclusive(readTable(), database);
}

/**
 * Processes that are seen to read the database, but not by this index: they have one whose name was taken away. One that is
 * just opening the database is among them for a moment.
 */
export function readersElsewhere(database: OpenFile, shm: OpenFile): number[] {
  const table = readTable();
  const here = new Set(
    locksIn(table, shm)
      .filter((lock) => covers(lock, SHM_PRESENCE_BYTE))
      .map(({ pid }) => pid),
  );
  return locksIn(table, database)
    .filter((lock) => covers(lock, SHARED_FIRST) && !here.has(lock.pid))
    .map(({ pid }) => pid);
}

function isExclusive(table: string, database: OpenFile): boolean {
  return locksIn(table, database).some((lock) => lock.write && covers(lock, SHARED_FIRST));
}

function covers(lock: SeenLock, byte: number): boolean {
  return lock.start <= byte && byte <= lock.end;
}

/** A device number as /proc/locks prints it: major and minor in hexadecimal, two digits at least. */
export function deviceName(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')}`;
}
