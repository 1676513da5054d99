/** What SQLite makes of a database's files as they lie there, page for page. */
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Application } from './application.js';

/**
 * The content that whoever opened the database now would see if nobody else were connected: a copy of its files is
 * opened, which recovers the WAL or rolls the journal back.
 */
export async function recovered(t: Parameters<typeof Application.start>[0], path: string): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-test-'));
  try {
    const copy = join(folder, 'copy.db');
    for (const suffix of ['', '-wal', '-journal']) {
      await copyFile(path + suffix, copy + suffix).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    }
    const application = Application.start(t, copy)!;
    await application.open();
    await application.run('SELECT count(*) FROM sqlite_schema');
    await application.image(join(folder, 'image'));
    await application.kill();
    return await readFile(join(folder, 'image'));
  } finally {
    await rm(folder, { recursive: true });
  }
}
