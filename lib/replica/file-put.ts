/** How files come into a folder: under a temporary name first, synced, and under their own name only when they are whole. */

import { randomBytes } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { makeFolder, removeStaleTemporaries, syncFolder } from './durable-file.js';
import { folderError } from './folder-error.js';

/** Puts files into the folders of one replica; each new folder is made, synced and cleaned once. */
export class FilePutter {
  /** Folders that this object has seen to: they exist, durably, and hold no stale temporary file. */
  readonly #prepared = new Set<string>();

  /** Writes under a temporary name, then gives it the final one; what fails leaves neither. */
  async put(
    path: string,
    write: (temporary: string) => Promise<void>,
    giveName: (temporary: string) => Promise<void>,
  ): Promise<void> {
    const folder = dirname(path);
    const temporary = join(folder, `.${basename(path)}.${randomBytes(8).toString('hex')}.tmp`);
    try {
      if (!this.#prepared.has(folder)) await makeFolder(folder);
      await write(temporary);
      if (!this.#prepared.has(folder)) await removeStaleTemporaries(folder, temporary);
      this.#prepared.add(folder);
      await giveName(temporary);
      await syncFolder(folder);
    } catch (error) {
      this.#prepared.delete(folder);
      await unlink(temporary).catch(() => {}); // The first error is the one to report.
      throw folderError(error, 'write', path);
    }
  }
}
