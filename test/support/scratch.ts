import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new empty folder for one test, removed when the test is over. */
export async function scratchFolder(t: { after(done: () => Promise<void>): void }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-test-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
