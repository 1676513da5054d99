/**
 * Descriptors of database files that never drop anybody's locks.
 *
 * On POSIX, closing any descriptor of a file drops every lock that the process holds on it, whoever took them: also those
 * of a SQLite library in the same process, which would then no longer keep other writers out. So:
 * 1. A descriptor is closed only when its file has no name any more: nobody can open that file, or lock it, again.
 * 2. A descriptor that is let go of while its file has a name is kept, and used again when that file is opened next. So
 *    the number of descriptors is bounded by the number of files, not of openings.
 */

import fs from 'node:fs';

/** A file held open. `dev` and `ino` name it for good. */
export interface OpenFile {
  readonly fd: number;
  readonly dev: bigint;
  readonly ino: bigint;
  /** A live source is only ever read; the files beside a live copy are written. */
  readonly access: Access;
}

export type Access = 'read' | 'write';

/** What was let go of. The one thing here that a process has only once, as it has its locks only once. */
const kept = new Map<string, OpenFile[]>();

/**
 * Opens a regular file, for reading unless told otherwise.
 * @throws the system's errors; EISDIR or ENOTREG if it is no regular file
 */
export function openHandle(path: string, access: Access = 'read'): OpenFile {
  closeNameless();
  const named = fs.statSync(path, { bigint: true });
  if (!named.isFile()) throw notRegular(named);
  const known = take({ dev: named.dev, ino: named.ino, access });
  if (known !== undefined) return known;
  const fd = access === 'read' ? openUnnoticed(path) : fs.openSync(path, 'r+');
  const stat = fs.fstatSync(fd, { bigint: true });
  if (!stat.isFile()) {
    fs.closeSync(fd);
    throw notRegular(stat);
  }
  return { fd, dev: stat.dev, ino: stat.ino, access };
}

/** Makes an empty file, for reading and writing, where there is none. Throws EEXIST where there is one. */
export function createHandle(path: string, mode: number): OpenFile {
  const fd = fs.openSync(path, 'wx+', mode);
  const { dev, ino } = fs.fstatSync(fd, { bigint: true });
  return { fd, dev, ino, access: 'write' };
}

/**
 * Opens for reading, so that reading leaves no trace: an access time that every read after a write moves would be a write
 * to the file's inode, which waits whenever the file system's journal is being committed. Linux grants that to the
 * file's owner only.
 */
function openUnnoticed(path: string): number {
  const { O_RDONLY, O_NONBLOCK = 0, O_NOATIME = 0 } = fs.constants;
  // Not blocking: a FIFO that has just come to stand at the path must not hang us.
  const flags = O_RDONLY | O_NONBLOCK;
  try {
    return fs.openSync(path, flags | O_NOATIME);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    return fs.openSync(path, flags);
  }
}

/** Lets go of a handle. It may be handed out again. */
export function releaseHandle(file: OpenFile): void {
  if (hasNoName(file)) {
    fs.closeSync(file.fd);
    return;
  }
  const handles = kept.get(keyOf(file));
  if (handles === undefined) kept.set(keyOf(file), [file]);
  else handles.push(file);
}

function take(wanted: HandleKey): OpenFile | undefined {
  const handles = kept.get(keyOf(wanted));
  const file = handles?.pop();
  if (handles?.length === 0) kept.delete(keyOf(wanted));
  return file;
}

function closeNameless(): void {
  for (const [key, handles] of kept) {
    if (!hasNoName(handles[0])) continue;
    for (const { fd } of handles) fs.closeSync(fd);
    kept.delete(key);
  }
}

function hasNoName(file: OpenFile): boolean {
  return fs.fstatSync(file.fd).nlink === 0;
}

type HandleKey = Pick<OpenFile, 'dev' | 'ino' | 'access'>;

function keyOf({ dev, ino, access }: HandleKey): string {
  return `${dev}:${ino}:${access}`;
}

function notRegular(stat: fs.BigIntStats): NodeJS.ErrnoException {
  const code = stat.isDirectory() ? 'EISDIR' : 'ENOTREG';
  return Object.assign(new Error(code), { code });
}
