/**
 * Distrust: whether a bucket still has what it once acknowledged, told from metadata alone.
 *
 * What servers 2.9 and 2.15 show of a store that lost something (tried on both: nats-server killed or stopped, its files
 * changed, started again):
 *
 * 1. *Store replaced by an older copy, block cut off:* the newest messages are gone as if they had never been; no error
 *    anywhere. Their names can be created again (expected sequence 0 holds), under sequences that were used before.
 * 2. *Bit flipped, server killed:* recovery cuts its block off at the first message whose checksum is wrong; blocks after it
 *    stay, so files are missing in the middle. 2.9 then finds no message of that block by its subject, though a
 *    consumer delivers them: a name is missing only if neither shows it.
 * 3. *Bit flipped, server stopped cleanly:* its saved state is believed. Counts and sequences look right, a consumer passes
 *    over the message without a word, and reading it by subject says that there is none. A meta so lost can be created
 *    again with expected sequence 0, but not with a rollup: the server cannot remove what it cannot read, acknowledges the
 *    new meta and removes that instead.
 * 4. *Stream deleted and made again:* empty, sequences from 1. Versions remembered from before mean nothing, digests do.
 * 5. Removing an object leaves a meta that says so, for a while (sweep.ts). Losing one does not: that tells the two apart.
 *
 * A look at a bucket in use is several questions one after the other, so each suspicion is looked into by itself, at the
 * stream's leader, before it is told.
 */

import { LTX_LEAST_SIZE } from '../../ltx/header.js';
import { ltxPath } from '../names.js';
import type { FileFlaw, LtxFileInfo } from '../replica.js';
import type { Bucket } from './bucket.js';
import { infoOf, type ListedFile, listedFile, versionOf } from './listing.js';
import { chunkCount, chunkCounts, lastMeta, type StoredObject } from './objects.js';
import { isOutlived } from './sweep.js';

const LOOKS_AT_ONCE = 16;

/**
 * The flaws of `listed`, the files under `prefix` as just listed anew, and of `remembered` ones, which stood at `seenMs`.
 * Throws REPLICA.
 */
export async function auditFiles(
  bucket: Bucket,
  prefix: string,
  listed: readonly ListedFile[],
  remembered: readonly LtxFileInfo[],
  seenMs: number,
): Promise<FileFlaw[]> {
  const counts = await chunkCounts(bucket);
  const byName = new Map(listed.map((file) => [ltxPath(file), file]));
  const looks: (() => Promise<FileFlaw | undefined>)[] = [];
  for (const file of listed) {
    const isWhole = (counts.get(file.nuid) ?? 0) === file.chunks && file.size >= LTX_LEAST_SIZE;
    if (!isWhole) looks.push(() => lookAgain(bucket, file));
  }
  for (const file of remembered) {
    const found = byName.get(ltxPath(file));
    if (found === undefined) looks.push(() => lookUp(bucket, prefix, file, listed, seenMs));
    else if (!isSame(file, found)) looks.push(async () => replaced(file, found));
  }
  const flaws: FileFlaw[] = [];
  for (let i = 0; i < looks.length; i += LOOKS_AT_ONCE) {
    const some = await Promise.all(looks.slice(i, i + LOOKS_AT_ONCE).map((look) => look()));
    for (const flaw of some) if (flaw !== undefined) flaws.push(flaw);
  }
  return flaws;
}

/** It may have been replaced or removed, or put, between listing and counting. */
async function lookAgain(bucket: Bucket, file: ListedFile): Promise<FileFlaw | undefined> {
  const { name, nuid, chunks, size } = file;
  const last = await lastMeta(bucket, name);
  if (last !== undefined && versionOf(last) !== file.version) return undefined;
  const found = await chunkCount(bucket, nuid);
  if (found === chunks && size >= LTX_LEAST_SIZE) return undefined;
  const message =
    found === chunks
      ? `expected at least ${LTX_LEAST_SIZE} bytes, found ${size}`
      : `expected ${chunks} chunks, the server has ${found}`;
  return { file: infoOf(file), kind: 'damaged', message };
}

async function lookUp(
  bucket: Bucket,
  prefix: string,
  file: LtxFileInfo,
  listed: readonly ListedFile[],
  seenMs: number,
): Promise<FileFlaw | undefined> {
  const name = ltxPath(file);
  const last = await lastMeta(bucket, prefix === '' ? name : `${prefix}/${name}`);
  if (last === undefined) {
    const kind = isOutlived(file, listed, seenMs) ? 'gone' : 'missing';
    return { file, kind, message: 'the server knows nothing of it' };
  }
  if (last.deleted) return { file, kind: 'removed', message: `it was removed at ${timeOf(last)}` };
  const found = listedFile(prefix, last);
  return found === undefined || isSame(file, found) ? undefined : replaced(file, found);
}

function replaced(file: LtxFileInfo, found: ListedFile): FileFlaw {
  const message = `other bytes stand under its name (${found.size} instead of ${file.size})`;
  return { file, kind: 'replaced', message };
}

function isSame(file: LtxFileInfo, found: ListedFile): boolean {
  if (file.version === found.version) return true;
  return file.size === found.size && file.digest !== undefined && file.digest === found.digest;
}

function timeOf(object: StoredObject): string {
  return new Date(object.storedMs).toISOString();
}
