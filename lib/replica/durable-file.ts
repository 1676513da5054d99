/**
 * Files that are there whole and durable, or not at all: temporary names, syncs, exclusive links.
 */

import { link, open, readdir, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isMissing, JetliteError } from '../errors.js';
import { makeFolders } from '../make-folder.js';
import { folderError } from './folder-error.js';

const COMPARE_SIZE = 1024 * 1024;
const STALE_TEMPORARY_MS = 3_600_000n;
const TEMPORARY = /^\..+\.[0-9a-f]{16}\.tmp$/;

/** Makes a folder, private, and every folder above it that is missing; each new one's parent is synced. */
export async function makeFolder(folder: string): Promise<void> {
  for (const made of await makeFolders(folder)) await syncFolder(dirname(made));
}

/**
 * Removes what killed writers left: temporary files that nobody has touched for an hour. `ours` was written just now, so
 * its times are the file system's present.
 */
export async function removeStaleTemporaries(folder: string, ours: string): Promise<void> {
  const now = (await stat(ours, { bigint: true })).ctimeMs;
  for (const name of await namesIn(folder)) {
    if (!TEMPORARY.test(name)) continue;
    const path = join(folder, name);
    try {
      if (now - (await stat(path, { bigint: true })).ctimeMs > STALE_TEMPORARY_MS) await unlink(path);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
}

/** Writes a new private file and makes its bytes durable; the modification time, if any, before the sync. */
export async function writeSynced(
  path: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal?: AbortSignal,
  timestampMs?: number | (() => number),
): Promise<void> {
  const handle = await open(path, 'wx', 0o600);
  try {
    for await (const bytes of content) {
      if (signal?.aborted)
        throw new JetliteError('ABORTED', `writing ${path} was stopped`, { cause: signal.reason });
      for (let from = 0; from < bytes.length; ) {
        from += (await handle.write(bytes, from, bytes.length - from)).bytesWritten;
      }
    }
    if (timestampMs !== undefined) {
      // Half a microsecond more: seconds as a float may fall just below the millisecond and be cut down to the last.
      const ms = typeof timestampMs === 'number' ? timestampMs : timestampMs();
      const seconds = (ms * 1000 + 0.5) / 1e6;
      await handle.utimes(seconds, seconds);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Gives a file a second name if that is free; whether it was, or the same bytes stand there, or others do. */
export async function linkExclusively(temporary: string, path: string): Promise<'linked' | 'same' | 'taken'> {
  try {
    await link(temporary, path);
    return 'linked';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  try {
    return (await sameBytes(temporary, path)) ? 'same' : 'taken';
  } catch (error) {
    if (isMissing(error)) return 'taken'; // It was, and is gone since.
    throw error;
  }
}

async function sameBytes(a: string, b: string): Promise<boolean> {
  const one = await open(a, 'r');
  try {
    const other = await open(b, 'r');
    try {
      const size = (await one.stat()).size;
      if ((await other.stat()).size !== size) return false;
      const left = new Uint8Array(Math.min(COMPARE_SIZE, size));
      const right = new Uint8Array(left.length);
      for (let position = 0; position < size; ) {
        const { bytesRead } = await one.read(left, 0, left.length, position);
        await other.read(right, 0, bytesRead, position);
        if (
          bytesRead === 0 ||
          Buffer.compare(left.subarray(0, bytesRead), right.subarray(0, bytesRead)) !== 0
        ) {
          return false;
        }
        position += bytesRead;
      }
      return true;
    } finally {
      await other.close();
    }
  } finally {
    await one.close();
  }
}

/** The names in a folder; none if it is not there. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isMissing(error)) return [];
    throw folderError(error, 'list', folder);
  }
}

export async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (!isMissing(error)) throw folderError(error, 'remove', path);
  }
}

export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
