/**
 * Where Jetlite keeps what belongs to one database: `.<name>-jetlite` beside it, unless the user says otherwise. What
 * belongs to one of its replicas is in a folder of its own inside, so that two replicas never mix.
 *
 * 1. Such a folder is named after the URL that it was made for, and is found by the URL that was used last, which it
 *    records (state-record.ts). So a URL that is spelled otherwise, or names another server of the cluster as well, leads
 *    to the same folder (same-replica.ts), and so does the one before it. Nothing is ever renamed or moved: whoever finds
 *    a folder claims it by its path, and its files stay where a process that works with them has them.
 * 2. A folder without a record (a version before this one made it) belongs to the URL that it is named after.
 * 3. Of several that belong to one replica, for its URL had no server in common with itself for a while, only one is gone
 *    on with: that of the very URL, else the one used last. They are never mixed, nor is one removed.
 */

import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { CaptureEvent } from '../capture/capture-options.js';
import { claim, isClaimed } from '../claim.js';
import { ConflictError } from '../errors.js';
import { compareReplicas, type Likeness, withoutCredentials } from '../replica/same-replica.js';
import { readAcknowledged } from './session/acknowledged.js';
import { countWaiting, SPOOL_FOLDER } from './session/spool-segment.js';
import { RECORD_FILE, readRecord } from './state-record.js';

/** The folder of a database's state. Nothing is created. */
export function stateFolder(database: string, stateDir?: string): string {
  if (stateDir !== undefined) return path.resolve(stateDir);
  const resolved = path.resolve(database);
  return path.join(path.dirname(resolved), `.${path.basename(resolved)}-jetlite`);
}

/** The folder inside it that belongs to one replica. It need not exist; nothing is created or claimed. */
export async function replicaStateFolder(folder: string, replicaUrl: string): Promise<string> {
  return choose(await keptIn(folder), folder, replicaUrl).path;
}

export interface ClaimedState {
  /** Of the database and its replica; `writeRecord` is to say in it whose it is. */
  readonly folder: string;
  readonly release: () => Promise<void>;
}

/**
 * Claims what belongs to a database and one of its replicas, until it is released.
 * @param folder of all the database's state
 * @param onEvent hears of what is gone on with under another URL, and what waits for nobody
 * @throws ConflictError if another process on this machine is at work with it
 */
export async function claimState(
  folder: string,
  database: string,
  replicaUrl: string,
  onEvent: (event: CaptureEvent) => void = () => {},
): Promise<ClaimedState> {
  for (;;) {
    const found = await replicaStateFolder(folder, replicaUrl);
    const release = await claim(found, () => {
      const what = `another process on this machine replicates ${database} to ${replicaUrl} already`;
      return new ConflictError(`${what}; nothing was touched`, {
        hint: `Let it do the work, or end it first. It uses ${found}.`,
      });
    });
    try {
      // Whoever had it claimed until now may have recorded another URL.
      const kept = await keptIn(folder);
      const chosen = choose(kept, folder, replicaUrl);
      if (chosen.path === found) {
        tellOfChosen(chosen, replicaUrl, onEvent);
        await tellOfOthers(kept, chosen, replicaUrl, onEvent);
        return { folder: found, release };
      }
    } catch (error) {
      await release();
      throw error;
    }
    await release();
  }
}

/** What stands in the state folder for one replica. */
interface Kept {
  readonly path: string;
  /** What is recorded. */
  readonly url: string | undefined;
  /** When something in it changed last; 0 if there is nothing that could be gone on with. */
  readonly usedMs: number;
}

const NAME = /^[0-9a-f]{16}$/;

async function keptIn(folder: string): Promise<Kept[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const folders = entries.filter((entry) => entry.isDirectory() && NAME.test(entry.name));
  return Promise.all(
    folders.map(async ({ name }) => {
      const inside = path.join(folder, name);
      return { path: inside, url: await readRecord(inside), usedMs: await lastUse(inside) };
    }),
  );
}

async function lastUse(folder: string): Promise<number> {
  const files = [folder, path.join(folder, SPOOL_FOLDER)].map(async (each) => {
    const entries = await readdir(each, { withFileTypes: true }).catch(() => []);
    const used = entries.filter(
      (entry) => entry.isFile() && entry.name !== RECORD_FILE && !entry.name.endsWith('.tmp'),
    );
    return Promise.all(
      used.map(async ({ name }) => (await stat(path.join(each, name)).catch(() => undefined))?.mtimeMs ?? 0),
    );
  });
  return Math.max(0, ...(await Promise.all(files)).flat());
}

function choose(kept: readonly Kept[], folder: string, replicaUrl: string): Kept {
  const url = withoutCredentials(replicaUrl);
  const named = nameFor(folder, replicaUrl);
  const isExact = (each: Kept) => (each.url === undefined ? each.path === named : each.url === url);
  const rank = (each: Kept) => [Number(isExact(each) && each.usedMs > 0), each.usedMs, Number(isExact(each))];
  const [best] = kept
    .filter((each) => isExact(each) || (each.url !== undefined && compareReplicas(each.url, url) === 'same'))
    .map((each) => ({ each, rank: rank(each) }))
    .sort((a, b) => b.rank[0] - a.rank[0] || b.rank[1] - a.rank[1] || b.rank[2] - a.rank[2]);
  return best?.each ?? { path: freePath(kept, folder, replicaUrl), url: undefined, usedMs: 0 };
}

/** One that is named after the URL, even where the folder that was made for it belongs to another replica by now. */
function freePath(kept: readonly Kept[], folder: string, replicaUrl: string): string {
  for (let n = 1; ; n++) {
    const free = nameFor(folder, n === 1 ? replicaUrl : `${replicaUrl} ${n}`);
    if (!kept.some((each) => each.path === free)) return free;
  }
}

function nameFor(folder: string, text: string): string {
  return path.join(folder, createHash('sha256').update(text).digest('hex').slice(0, 16));
}

function tellOfChosen(
  { path, url, usedMs }: Kept,
  replicaUrl: string,
  onEvent: (event: CaptureEvent) => void,
): void {
  if (url === undefined || url === withoutCredentials(replicaUrl) || usedMs === 0) return;
  const message = `what ${path} holds for ${url} is gone on with for ${replicaUrl}: it is the same bucket, at a server that both name`;
  onEvent({ type: 'state', level: 'info', message });
}

/** Warns of files that wait in other folders and would have been expected to be put now. */
async function tellOfOthers(
  kept: readonly Kept[],
  chosen: Kept,
  replicaUrl: string,
  onEvent: (event: CaptureEvent) => void,
): Promise<void> {
  // A folder that was moved is another replica, and nobody's spelling of this one.
  if (/^file:/i.test(replicaUrl)) return;
  for (const { path: other, url } of kept) {
    if (other === chosen.path) continue;
    const likeness = url === undefined ? 'unknown' : compareReplicas(url, withoutCredentials(replicaUrl));
    if (likeness === 'other') continue;
    const waiting = await countWaiting(path.join(other, SPOOL_FOLDER), readAcknowledged(other));
    // Somebody is at work with it: they will be put.
    if (waiting === 0n || (await isClaimed(other))) continue;
    const what = `what waits in ${other} (${waiting} ${waiting === 1n ? 'file' : 'files'}) is not put`;
    onEvent({ type: 'state', level: 'warn', message: `${what}: ${whyNot(url, likeness, replicaUrl)}` });
  }
}

function whyNot(url: string | undefined, likeness: Likeness | 'unknown', replicaUrl: string): string {
  if (likeness === 'unknown') {
    return 'an earlier version left it and did not record for which replica; run once with the URL that it is for, or remove that folder';
  }
  const which =
    likeness === 'namesake'
      ? `it is for ${url}, which has no server in common with ${replicaUrl}`
      : `it is for ${url}, and what is kept for ${replicaUrl} went on without it`;
  return `${which}; run once with that URL, or remove that folder`;
}
