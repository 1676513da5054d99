/**
 * Which file it is that stands at a path of a folder's replica, told by its metadata, and the errors of a writer who finds
 * another one than it listed.
 */

import type { BigIntStats } from 'node:fs';
import { stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ConflictError, isMissing, JetliteError } from '../errors.js';
import { formatTxid, parseLtxFileName } from '../ltx/header.js';
import { namesIn, syncFolder } from './durable-file.js';
import type { LtxName } from './names.js';
import type { LtxFileInfo, LtxFileTarget } from './replica.js';
import { whoWrote } from './writer.js';

const ONE_WRITER = 'Only one program may write a replica: stop one of them, or give each its own folder.';

/** What a listing shows of a file: its name, and what the file system says of it. */
export function infoOf(file: LtxName, found: BigIntStats): LtxFileInfo {
  return {
    level: file.level,
    minTxid: file.minTxid,
    maxTxid: file.maxTxid,
    size: Number(found.size),
    timestampMs: Number(found.mtimeMs),
    version: versionOf(found),
  };
}

/** The change time is no part of it: taking away the temporary name of a linked file moves it. */
export function versionOf(found: BigIntStats): string {
  return `${found.ino}:${found.size}:${found.mtimeNs}`;
}

/** The version of what stands at a path; undefined if nothing does. */
export async function foundVersion(path: string): Promise<string | undefined> {
  try {
    return versionOf(await stat(path, { bigint: true }));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Throws ConflictError unless that very version stands at the path. */
export async function expectVersion(path: string, version: string): Promise<void> {
  const found = await foundVersion(path);
  if (found === version) return;
  const what = found === undefined ? 'removed' : 'replaced';
  throw new ConflictError(`${path} was ${what} by another writer since it was listed`, { hint: ONE_WRITER });
}

/** Throws ConflictError, and takes the file at `path` away again, if another writer put a higher TXID beside it. */
export async function expectNothingAbove(target: LtxFileTarget, path: string): Promise<void> {
  for (const name of await namesIn(dirname(path))) {
    const other = parseLtxFileName(name);
    if (other === undefined || other.maxTxid <= target.maxTxid) continue;
    await unlink(path);
    await syncFolder(dirname(path));
    throw await conflict(join(dirname(path), name), `above TXID ${formatTxid(target.maxTxid)} of this one`);
  }
}

/** The error for a file that was listed and is not there any more, or is another one. */
export function gone(path: string): JetliteError {
  return new JetliteError('NOT_FOUND', `${path} was removed or replaced after it was listed`);
}

/** The error for a name that another writer took: who it was and when. */
export async function conflict(path: string, why: string): Promise<ConflictError> {
  const { writer, timestampMs } = await whoWrote(path);
  const when = new Date(timestampMs).toISOString();
  return new ConflictError(`${writer} put ${path} (of ${when}), ${why}`, { hint: ONE_WRITER });
}
