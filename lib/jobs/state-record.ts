/**
 * Which replica a state folder belongs to: a small file in it, `replica`, that holds the replica's URL as JSON.
 *
 * Written under a temporary name, synced and renamed. It is believed only if it is what we would have written: anything
 * else counts as none, as in the folders of versions that wrote none.
 */

import { lstat, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { makeFolder, syncFolder, writeSynced } from '../replica/durable-file.js';
import { withoutCredentials } from '../replica/same-replica.js';

export const RECORD_FILE = 'replica';
const LARGEST = 16 * 1024;

/** The URL in a folder's record; undefined if there is none. */
export async function readRecord(folder: string): Promise<string | undefined> {
  const file = path.join(folder, RECORD_FILE);
  try {
    const found = await lstat(file);
    // Nobody writes into a pipe.
    if (!found.isFile() || found.size > LARGEST) return undefined;
    const { replica } = JSON.parse(await readFile(file, 'utf8'));
    return isUrl(replica) ? replica : undefined;
  } catch {
    return undefined;
  }
}

/** Writes it down, unless that stands there. A folder that cannot be written is told of by those who need it more. */
export async function writeRecord(folder: string, replicaUrl: string): Promise<void> {
  const url = withoutCredentials(replicaUrl);
  if (!isUrl(url) || (await readRecord(folder)) === url) return;
  const file = path.join(folder, RECORD_FILE);
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    await makeFolder(folder);
    await rm(temporary, { force: true });
    await writeSynced(temporary, [Buffer.from(`${JSON.stringify({ replica: url })}\n`)]);
    await rename(temporary, file);
    await syncFolder(folder);
  } catch {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

/** It comes into messages: nothing secret, nothing that would move a terminal's cursor. */
function isUrl(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    value.length < LARGEST / 4 &&
    !/\p{C}/u.test(value) &&
    value === withoutCredentials(value)
  );
}
