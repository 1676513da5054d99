/**
 * The three files of a live database, opened read-only.
 *
 * Invariants:
 * 1. Nothing here writes, locks or truncates. The only calls made on the files are open for reading, read and stat.
 * 2. Handles are opened once and not closed as long as their file has a name, not even at the end: see handles.ts.
 * 3. Symbolic links are resolved first, at every look: SQLite keeps `-wal`, `-shm` and `-journal` beside the target, not
 *    the link.
 * 4. A file is known by device and inode, never by its path alone.
 */

import fs from 'node:fs';
import path from 'node:path';
import { JetliteError } from '../errors.js';
import { type OpenFile, openHandle, releaseHandle } from './handles.js';

export type { OpenFile } from './handles.js';

/** What of a file's stat capture compares; times in nanoseconds. */
export interface FileStamp {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly links: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/**
 * File times come from a clock that ticks every 1 to 10 ms. Two changes within one tick leave equal times, so a time
 * proves "nothing since" only when it is older than two ticks of the slowest.
 */
export const SETTLED_NS = 20_000_000n;

export function stampsEqual(a: FileStamp | undefined, b: FileStamp | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.ino === b.ino &&
    a.dev === b.dev &&
    a.size === b.size &&
    a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs
  );
}

/** Whether the stamp's times are old enough to prove that a later change would move them. */
export function isSettled(stamp: FileStamp, nowMs: number = Date.now()): boolean {
  const now = BigInt(nowMs) * 1_000_000n;
  return now - stamp.mtimeNs > SETTLED_NS && now - stamp.ctimeNs > SETTLED_NS;
}

/** Reads until `length` bytes are there or the file ends; returns how many were read. */
export function readFully(
  fd: number,
  into: Uint8Array,
  length: number,
  position: number,
  offset = 0,
): number {
  let got = 0;
  while (got < length) {
    const n = fs.readSync(fd, into, offset + got, length - got, position + got);
    if (n === 0) break;
    got += n;
  }
  return got;
}

/** What one look at the paths found. */
export interface FilesChange {
  /** The path names another database file than before: everything must be read anew. */
  readonly databaseReplaced: boolean;
  /** The `-wal` that was held has lost its name: it stands in `retired` until it was drained. */
  readonly walRetired: boolean;
}

/** The handles of one database. See the module's invariants. */
export class SourceFiles {
  /** The database's own path, links resolved as they were at the last look. */
  path: string;
  readonly #given: string;
  database: OpenFile;
  wal: OpenFile | undefined;
  shm: OpenFile | undefined;
  /** The pair that lost its name and has not been let go yet. */
  retired: { readonly wal: OpenFile; readonly shm: OpenFile | undefined } | undefined;

  #closed = false;

  private constructor(given: string, resolved: string, database: OpenFile) {
    this.#given = given;
    this.path = resolved;
    this.database = database;
  }

  /**
   * Opens the database and whatever stands beside it.
   * @throws JetliteError NO_DATABASE if there is nothing, DATABASE if it is no readable regular file
   */
  static open(databasePath: string): SourceFiles {
    const given = path.resolve(databasePath);
    const resolved = resolveLinks(given);
    const opened = openByPath(resolved);
    if (opened === undefined) throw databaseError(databasePath, { code: 'ENOENT' });
    const files = new SourceFiles(given, resolved, opened);
    files.refresh();
    return files;
  }

  get walPath(): string {
    return `${this.path}-wal`;
  }

  get shmPath(): string {
    return `${this.path}-shm`;
  }

  get journalPath(): string {
    return `${this.path}-journal`;
  }

  /**
   * Compares the paths with the handles and opens what is new.
   * @throws JetliteError NO_DATABASE if the database has gone
   */
  refresh(): FilesChange {
    let databaseReplaced = false;
    this.path = resolveLinks(this.#given);
    const now = statPath(this.path);
    if (now === undefined) throw databaseError(this.path, { code: 'ENOENT' });
    if (!isSameFile(now, this.database)) {
      const replacement = openByPath(this.path);
      if (replacement === undefined) throw databaseError(this.path, { code: 'ENOENT' });
      releaseHandle(this.database);
      this.database = replacement;
      databaseReplaced = true;
    }
    const walNow = statPath(this.walPath);
    const shmNow = statPath(this.shmPath);
    const isShmHeld = shmNow !== undefined && this.shm !== undefined && isSameFile(shmNow, this.shm);
    let walRetired = false;
    if (this.wal !== undefined && (walNow === undefined || !isSameFile(walNow, this.wal))) {
      this.releaseRetired();
      // The last to close takes the index's name away before the WAL's. An index that still has its name was not used by
      // whoever took the WAL's away, and says nothing about how that WAL ended.
      this.retired = { wal: this.wal, shm: isShmHeld ? undefined : this.shm };
      this.wal = undefined;
      if (!isShmHeld) this.shm = undefined;
      walRetired = true;
    }
    if (this.wal === undefined && walNow !== undefined) this.wal = openByPath(this.walPath);
    // Until another index stands there, the one held still tells where the WAL that is closed ends.
    if (shmNow !== undefined && !isShmHeld) {
      if (this.shm !== undefined) releaseHandle(this.shm);
      this.shm = openByPath(this.shmPath);
    }
    return { databaseReplaced, walRetired };
  }

  /** Whether there is a WAL to follow: one with frames, or with an index that counts what will be in it. */
  get hasWal(): boolean {
    return this.wal !== undefined && (this.shm !== undefined || stampOf(this.wal).size > 0n);
  }

  /** Lets go of the pair that was drained. */
  releaseRetired(): void {
    if (this.retired === undefined) return;
    releaseHandle(this.retired.wal);
    if (this.retired.shm !== undefined) releaseHandle(this.retired.shm);
    this.retired = undefined;
  }

  /** Lets go of everything, once: a handle that was let go of may be somebody else's by now. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.releaseRetired();
    for (const file of [this.database, this.wal, this.shm]) if (file !== undefined) releaseHandle(file);
    this.wal = undefined;
    this.shm = undefined;
  }
}

/** The stamp of an open file, whatever its path names by now. */
export function stampOf(file: OpenFile): FileStamp {
  return toStamp(fs.fstatSync(file.fd, { bigint: true }));
}

/** The stamp of what a path names; undefined if nothing. */
export function statPath(file: string): FileStamp | undefined {
  const stat = fs.statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? undefined : toStamp(stat);
}

export function isSameFile(a: { dev: bigint; ino: bigint }, b: { dev: bigint; ino: bigint }): boolean {
  return a.ino === b.ino && a.dev === b.dev;
}

function toStamp(stat: fs.BigIntStats): FileStamp {
  return {
    dev: stat.dev,
    ino: stat.ino,
    links: stat.nlink,
    size: stat.size,
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
  };
}

function resolveLinks(file: string): string {
  try {
    return fs.realpathSync.native(file);
  } catch (error) {
    throw databaseError(file, error);
  }
}

/** Undefined if the path names nothing (any more). */
function openByPath(file: string): OpenFile | undefined {
  try {
    return openHandle(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw databaseError(file, error);
  }
}

const READABLE = 'The user that runs jetlite must be able to read the database, its -wal and its -shm.';
const REASONS: Record<string, readonly [reason: string, hint: string]> = {
  ENOENT: ['no such file', 'Check the path: the database must exist before it can be read.'],
  EISDIR: ['expected a SQLite database file, found a directory', 'Name the database file inside it.'],
  ENOTDIR: ['a part of the path is not a directory', 'Check the path.'],
  ENOTREG: ['expected a SQLite database file, found something that is not a regular file', 'Check the path.'],
  EACCES: ['permission denied', READABLE],
  EPERM: ['permission denied', READABLE],
  ELOOP: ['too many symbolic links', 'Check where the link leads.'],
};

function databaseError(file: string, cause: unknown): JetliteError {
  const code = (cause as NodeJS.ErrnoException).code ?? '';
  const [reason, hint] = REASONS[code] ?? [`cannot be opened (${code || String(cause)})`, 'Check the path.'];
  return new JetliteError(code === 'ENOENT' ? 'NO_DATABASE' : 'DATABASE', `${file}: ${reason}`, {
    hint,
    cause,
  });
}
