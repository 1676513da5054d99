import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new empty folder for one test, removed when the test is over. */
export async function scratchFolder(t: { after(done: () => Promise<void>): void }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-test-'));
  t.after(() => removeScratch(folder));
  return folder;
}

const left = new Set<string>();

/**
 * Removes a test's folder. What a test asked for first ends first: processes that were started later may still make files in
 * it. Then it goes when the test's process ends.
 */
export async function removeScratch(folder: string): Promise<void> {
  try {
    await rm(folder, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error;
    if (left.size === 0) process.once('exit', removeLeft);
    left.add(folder);
  }
}

function removeLeft(): void {
  for (const folder of left) rmSync(folder, { recursive: true, force: true });
}
