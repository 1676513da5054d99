/**
 * The companions of a replica in a folder, which Litestream does not know about: they lie under `jetlite/`.
 *
 * 1. Of those who replace the same version of a companion one wins: a marker, whose name is made from that version, is
 *    linked exclusively first. A marker whose writer died is passed over once the file system's clock has gone on.
 */

import { createHash } from 'node:crypto';
import { open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isMissing, LeaseLostError } from '../errors.js';
import { linkExclusively, syncFolder, unlinkIfThere, writeSynced } from './durable-file.js';
import type { FilePutter } from './file-put.js';
import { conflict, expectVersion, foundVersion, versionOf } from './file-version.js';
import { folderError } from './folder-error.js';
import { extraPath } from './names.js';
import { type Extra, LEASE_NAME } from './replica.js';

const STALE_MARKER_MS = 10_000n;

/** Reads and writes them; paths and errors as the interface `Replica` says. */
export class FileExtras {
  readonly #root: string;
  readonly #putter: FilePutter;

  constructor(root: string, putter: FilePutter) {
    this.#root = root;
    this.#putter = putter;
  }

  async read(name: string): Promise<Extra | undefined> {
    const path = this.#path(name);
    try {
      const handle = await open(path, 'r');
      try {
        const found = await handle.stat({ bigint: true });
        return {
          bytes: await handle.readFile(),
          version: versionOf(found),
          writtenMs: Number(found.mtimeMs),
        };
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw folderError(error, 'read', path);
    }
  }

  async write(name: string, bytes: Uint8Array, replaces?: string): Promise<string> {
    const path = this.#path(name);
    let version = '';
    await this.#putter.put(
      path,
      (temporary) => writeSynced(temporary, [bytes]),
      async (temporary) => {
        version = versionOf(await stat(temporary, { bigint: true }));
        if (replaces === undefined) {
          await rename(temporary, path);
        } else if (replaces === 'nothing') {
          const given = await linkExclusively(temporary, path);
          if (given === 'taken') throw await conflict(path, 'where nothing was expected');
          if (given === 'same') version = versionOf(await stat(path, { bigint: true }));
          await unlink(temporary);
        } else {
          await this.#replace(temporary, path, replaces);
        }
      },
    );
    return version;
  }

  async remove(name: string, version?: string): Promise<void> {
    const path = this.#path(name);
    try {
      if ((await foundVersion(path)) === undefined) return;
      if (version !== undefined) await expectVersion(path, version);
      await unlinkIfThere(path);
      await syncFolder(dirname(path));
    } catch (error) {
      throw folderError(error, 'remove', path);
    }
  }

  /** The file system's present, in milliseconds since the epoch. */
  async clock(): Promise<number> {
    const path = this.#path('clock');
    let now = 0;
    await this.#putter.put(
      path,
      (temporary) => writeSynced(temporary, []),
      async (temporary) => {
        now = Number((await stat(temporary, { bigint: true })).mtimeMs);
        await unlink(temporary);
      },
    );
    return now;
  }

  /** Throws LeaseLostError unless that version of the lease still stands. */
  async expectLease(version: string): Promise<void> {
    const path = this.#path(LEASE_NAME);
    if ((await foundVersion(path)) === version) return;
    throw new LeaseLostError(`${path} is held by another program by now`);
  }

  /** Invariant 1. */
  async #replace(temporary: string, path: string, version: string): Promise<void> {
    const mark = createHash('sha256').update(version).digest('hex').slice(0, 16);
    const marker = join(dirname(path), `.${basename(path)}.${mark}.tmp`);
    if ((await linkExclusively(temporary, marker)) !== 'linked') {
      const now = (await stat(temporary, { bigint: true })).ctimeMs;
      const marked = await stat(marker, { bigint: true }).catch(() => undefined);
      if (marked !== undefined && now - marked.ctimeMs > STALE_MARKER_MS) await unlinkIfThere(marker);
      throw await conflict(path, 'or is putting it just now');
    }
    try {
      await expectVersion(path, version);
      await rename(temporary, path);
    } finally {
      await unlinkIfThere(marker);
    }
  }

  #path(name: string): string {
    return join(this.#root, extraPath(name));
  }
}
