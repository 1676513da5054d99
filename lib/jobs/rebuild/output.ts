/**
 * A database file that comes into being at once or not at all.
 *
 * 1. It is made under a temporary name beside its final one, private to its owner, synced, and only then given its name.
 * 2. Without `force` the name is given by an exclusive link: a file that appeared there meanwhile is left alone.
 * 3. A `-wal` or `-journal` left by another database would be replayed into this one by the next reader. Without `force`
 *    that is refused; with it, they are put aside before the name is given, back if that fails, and removed after.
 * 4. A temporary file is touched every minute as long as somebody works on it. One that nobody has touched for ten was left
 *    by a process that was killed, and the next one that makes the same database removes it, before it needs the space.
 */

import { randomBytes } from 'node:crypto';
import {
  type FileHandle,
  link,
  lstat,
  open,
  readdir,
  realpath,
  rename,
  stat,
  unlink,
} from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { JetliteError } from '../../errors.js';
import { makeFolders } from '../../make-folder.js';

/** What may stand at an output path before anything is written. */
export interface OutputPlace {
  /** Absolute, symbolic links resolved: SQLite looks for companions beside the file itself. */
  readonly path: string;
  readonly exists: boolean;
  /** Companions of an earlier database, `-wal`, `-journal` and `-shm`, by path. */
  readonly leftovers: readonly string[];
}

const COMPANIONS = ['-wal', '-journal', '-shm'];
const TOUCH_MS = 60_000;
const ABANDONED_MS = 600_000;

/** Looks at an output path. Throws OUTPUT for what can never become a database file. */
export async function lookAtOutput(output: string): Promise<OutputPlace> {
  const path = await resolveLinks(resolve(output));
  const found = await statIfThere(path);
  if (found?.isDirectory()) {
    throw new JetliteError('OUTPUT', `expected a file name for the output, found the folder ${path}`, {
      hint: `Name a file in it, such as ${join(path, 'restored.db')}.`,
    });
  }
  if (found !== undefined && !found.isFile()) {
    throw new JetliteError('OUTPUT', `${path} is no ordinary file`, { hint: 'Choose another output path.' });
  }
  const leftovers: string[] = [];
  for (const suffix of COMPANIONS) {
    if ((await statIfThere(path + suffix)) !== undefined) leftovers.push(path + suffix);
  }
  return { path, exists: found !== undefined, leftovers };
}

/** Throws OUTPUT if the place is taken, by a database or by leftovers that would be replayed into a new one. */
export async function expectFree(place: OutputPlace): Promise<void> {
  if (place.exists) throw taken(place.path);
  for (const path of place.leftovers) {
    if (path.endsWith('-shm') || (await statIfThere(path))?.size === 0) continue;
    throw new JetliteError(
      'OUTPUT',
      `${path} is there, and SQLite would replay it into the restored database`,
      {
        hint: 'It belongs to an earlier database at this path: move it away, or use --force to remove it.',
      },
    );
  }
}

function taken(path: string): JetliteError {
  return new JetliteError('OUTPUT', `the output file ${path} exists`, {
    hint: 'Choose another path with -o, or use --force to replace it.',
  });
}

/** A file under a temporary name beside the place it is for. */
export class OutputFile {
  readonly file: FileHandle;
  readonly temporaryPath: string;
  readonly #place: OutputPlace;
  readonly #touching: NodeJS.Timeout;

  private constructor(place: OutputPlace, temporaryPath: string, file: FileHandle) {
    this.#place = place;
    this.temporaryPath = temporaryPath;
    this.file = file;
    this.#touching = setInterval(() => {
      file.utimes(new Date(), new Date()).catch(() => {}); // Nothing depends on one of them.
    }, TOUCH_MS).unref();
  }

  static async create(place: OutputPlace): Promise<OutputFile> {
    const folder = dirname(place.path);
    const temporaryPath = join(folder, `.${basename(place.path)}.${randomBytes(8).toString('hex')}.tmp`);
    try {
      for (const made of await makeFolders(folder, 0o777)) await syncFolder(dirname(made));
      const file = await open(temporaryPath, 'wx+', 0o600);
      await removeAbandoned(place.path, file);
      return new OutputFile(place, temporaryPath, file);
    } catch (error) {
      throw outputError(error, place.path);
    }
  }

  /**
   * Makes the bytes durable and gives the file its name; `mode`: for others than its owner, too. Returns the leftovers that
   * were removed.
   */
  async publish(force: boolean, mode?: number): Promise<readonly string[]> {
    const { path, leftovers } = this.#place;
    clearInterval(this.#touching);
    try {
      if (mode !== undefined) await this.file.chmod(mode);
      await this.file.sync();
      await this.file.close();
      if (force) await this.#replace();
      else await this.#giveName();
      await syncFolder(dirname(path));
      return force ? leftovers : [];
    } catch (error) {
      throw outputError(error, path);
    }
  }

  /** Removes the temporary file. Nothing may be done with this afterwards. */
  async discard(): Promise<void> {
    clearInterval(this.#touching);
    await this.file.close().catch(() => {}); // It may be closed already.
    await unlink(this.temporaryPath).catch(() => {}); // What failed before is the error to report.
  }

  async #giveName(): Promise<void> {
    const { path } = this.#place;
    try {
      await link(this.temporaryPath, path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw taken(path);
      // File systems without hard links (FAT, some network shares) have no exclusive way.
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
      if ((await statIfThere(path)) !== undefined) throw taken(path);
      await rename(this.temporaryPath, path);
      return;
    }
    await unlink(this.temporaryPath);
  }

  async #replace(): Promise<void> {
    const { path, leftovers } = this.#place;
    const aside = new Map<string, string>();
    const suffix = randomBytes(8).toString('hex');
    try {
      for (const leftover of leftovers) {
        const asidePath = join(dirname(leftover), `.${basename(leftover)}.${suffix}.old`);
        await rename(leftover, asidePath);
        aside.set(leftover, asidePath);
      }
      await rename(this.temporaryPath, path);
    } catch (error) {
      for (const [leftover, asidePath] of aside) await rename(asidePath, leftover).catch(() => {});
      throw error;
    }
    for (const asidePath of aside.values()) await unlink(asidePath).catch(() => {});
  }
}

/** Removes what killed processes left of the database at `path`. `ours` was made just now, by the file system's own clock. */
async function removeAbandoned(path: string, ours: FileHandle): Promise<void> {
  try {
    const now = (await ours.stat()).mtimeMs;
    const beginning = `.${basename(path)}.`;
    for (const name of await readdir(dirname(path))) {
      if (!name.startsWith(beginning) || !/^[0-9a-f]{16}\.tmp$/.test(name.slice(beginning.length))) continue;
      const other = join(dirname(path), name);
      if (now - (await stat(other)).mtimeMs > ABANDONED_MS) await unlink(other);
    }
  } catch {
    // A folder that cannot be listed, a file that is gone meanwhile: the restore does not need this.
  }
}

/** A JetliteError OUTPUT for what the file system refused; every other error as it is. */
export function outputError(error: unknown, path: string): unknown {
  if (error instanceof JetliteError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  const [problem, hint] = WORDS[code] ?? [`${code} from ${syscall}`, 'Choose another output path.'];
  return new JetliteError('OUTPUT', `cannot write ${path}: ${problem}`, { hint, cause: error });
}

const WORDS: Record<string, readonly [problem: string, hint: string]> = {
  ENOENT: ['its folder cannot be made there', 'Choose another folder.'],
  EACCES: ['permission denied', 'Choose a folder this user may write in.'],
  EPERM: ['the operation is not permitted', 'Choose a folder this user may write in.'],
  EROFS: ['the file system is read-only', 'Choose a folder that can be written.'],
  ENOSPC: ['the disk is full', 'Free some space or choose another disk; nothing was left behind.'],
  EDQUOT: ['the disk quota is used up', 'Free some space or choose another disk; nothing was left behind.'],
  EFBIG: ['the file would be larger than its file system allows', 'Choose another file system.'],
  ENOTDIR: ['a part of the path is a file, not a folder', 'Choose another output path.'],
  EEXIST: ['a part of the path is a file, not a folder', 'Choose another output path.'],
  ENAMETOOLONG: ['the path is too long', 'Choose a shorter one.'],
};

async function resolveLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    const isLink = await lstat(path).then(
      (found) => found.isSymbolicLink(),
      () => false,
    );
    if (isLink) {
      throw new JetliteError('OUTPUT', `${path} is a symbolic link that leads nowhere`, {
        hint: 'Remove it, or choose another output path.',
      });
    }
    return path;
  }
}

async function statIfThere(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw outputError(error, path);
  }
}

/** Makes the names in a folder durable, where the system can. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(folder, 'r');
  } catch {
    return; // Windows opens no folders.
  }
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
