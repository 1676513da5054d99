/**
 * A folder for what a check needs only as long as it runs.
 *
 * 1. It is private to its owner, and touched every minute as long as somebody works in it. One that nobody has touched for
 *    ten was left by a process that was killed; the next check of the same owner removes it, before it needs the space.
 */

import { lstat, mkdtemp, readdir, rm, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outputError } from '../rebuild/output.js';

const NAME = 'jetlite-verify-';
const TOUCH_MS = 60_000;
const ABANDONED_MS = 600_000;

/** What `work` gives, in a folder that is gone afterwards. Throws OUTPUT, and what `work` does. */
export async function inScratchFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const place = join(tmpdir(), NAME);
  const folder = await mkdtemp(place).catch((error: unknown) => {
    throw outputError(error, place);
  });
  const touching = setInterval(() => {
    utimes(folder, new Date(), new Date()).catch(() => {}); // Nothing depends on one of them.
  }, TOUCH_MS).unref();
  try {
    await removeAbandoned(folder);
    return await work(folder);
  } finally {
    clearInterval(touching);
    await rm(folder, { recursive: true, force: true });
  }
}

async function removeAbandoned(ours: string): Promise<void> {
  try {
    const { mtimeMs: now, uid } = await lstat(ours);
    for (const name of await readdir(tmpdir())) {
      if (!name.startsWith(NAME) || !/^[A-Za-z0-9]{6}$/.test(name.slice(NAME.length))) continue;
      const other = join(tmpdir(), name);
      const found = await lstat(other).catch(() => undefined);
      if (!found?.isDirectory() || found.uid !== uid || now - found.mtimeMs <= ABANDONED_MS) continue;
      await rm(other, { recursive: true, force: true });
    }
  } catch {
    // A folder that cannot be listed, or emptied: the check does not need this.
  }
}
