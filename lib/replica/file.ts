/**
 * A replica in a folder, laid out as Litestream does: `ltx/<level>/<min>-<max>.ltx`.
 *
 * 1. A file is written under a temporary name in the folder of its final one, synced, and only then given that
 *    name; the folder is synced before `write` returns. What failed leaves nothing behind; what a killed writer
 *    left is removed by a later one, once the file system's own clock shows that it has not been touched for an hour.
 * 2. At level 0 the name is given by an exclusive hard link, which fails if the name is taken. A listing follows: a
 *    higher TXID there was put by another writer, so ours is taken back.
 * 3. A file's modification time is the time of its LTX header, to the millisecond: that is what Litestream reads.
 * 4. A level-0 file is only put where the newest one seen before still stands: a disk that is not mounted, or a folder that
 *    somebody moved away, must not become a replica without a beginning.
 * 5. The folder comes into being with the first write, so that a mistyped path given to a reader creates nothing.
 */

import { type FileHandle, open, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConflictError, FormatError, isMissing, JetliteError } from '../errors.js';
import { linkExclusively, namesIn, syncFolder, unlinkIfThere, writeSynced } from './durable-file.js';
import { flawsOf } from './file-audit.js';
import { FileExtras } from './file-extras.js';
import { FilePutter } from './file-put.js';
import {
  conflict,
  expectNothingAbove,
  expectVersion,
  foundVersion,
  gone,
  infoOf,
  versionOf,
} from './file-version.js';
import { folderError } from './folder-error.js';
import { watchFolder } from './folder-watch.js';
import { compareFiles, type LtxName, levelFolder, ltxPath, parseLevel, parseLtxPath } from './names.js';
import { Remembered } from './remembered.js';
import type {
  AuditFindings,
  ByteSource,
  Extra,
  LtxFileInfo,
  LtxFileTarget,
  ReadOptions,
  ReadRange,
  Replica,
} from './replica.js';

const READ_SIZE = 1024 * 1024;
/** For small files, of which many are read, and for those that are read side by side. */
const SMALL_READ_SIZE = 128 * 1024;
const MOST_SPARE = 8;
const STATS_AT_ONCE = 64;

/**
 * The replica in `folder`, which need not exist yet. Throws JetliteError REPLICA if something that is not a folder
 * stands there or it cannot be looked at.
 */
export async function openFileReplica(folder: string): Promise<Replica> {
  const root = resolve(folder);
  try {
    if (!(await stat(root)).isDirectory()) {
      throw new JetliteError('REPLICA', `expected a folder at ${root}, found a file`, {
        hint: 'Name the folder that holds the replica; it is created when nothing is there.',
      });
    }
  } catch (error) {
    if (!isMissing(error)) throw folderError(error, 'open', root);
  }
  return new FileReplica(root);
}

class FileReplica implements Replica {
  readonly url: string;
  readonly #root: string;
  readonly #putter = new FilePutter();
  readonly #extras: FileExtras;
  /** Memory of reads that have ended. */
  readonly #spare: Uint8Array[] = [];
  /** The newest file of level 0 that this object put or listed. */
  #newest: LtxName | undefined;
  /** Versions of what this object put. */
  readonly #own = new Remembered();

  constructor(root: string) {
    this.#root = root;
    this.#extras = new FileExtras(root, this.#putter);
    this.url = pathToFileURL(root).href;
  }

  async list(level?: number): Promise<LtxFileInfo[]> {
    const levels = level === undefined ? await this.#levels() : [level];
    const files: LtxFileInfo[] = [];
    for (const one of levels) files.push(...(await this.#listLevel(one)));
    for (const file of files) {
      if (file.level === 0 && file.maxTxid >= (this.#newest?.maxTxid ?? 0n)) this.#newest = file;
    }
    return files.sort(compareFiles);
  }

  async *read(file: LtxFileInfo, range?: ReadRange, options: ReadOptions = {}): AsyncGenerator<Uint8Array> {
    const path = this.#path(file);
    let handle: FileHandle;
    let buffer: Uint8Array | undefined;
    try {
      handle = await open(path, 'r');
    } catch (error) {
      throw isMissing(error) ? gone(path) : folderError(error, 'read', path);
    }
    try {
      const found = await handle.stat({ bigint: true });
      if (file.version !== undefined && versionOf(found) !== file.version) throw gone(path);
      const size = Number(found.size);
      let position = Math.min(range?.offset ?? 0, size);
      const end = range === undefined ? size : Math.min(position + range.length, size);
      const small = options.onDemand === true || end - position < READ_SIZE;
      buffer = small ? (this.#spare.pop() ?? new Uint8Array(SMALL_READ_SIZE)) : new Uint8Array(READ_SIZE);
      while (position < end) {
        const wanted = Math.min(buffer.length, end - position);
        const { bytesRead } = await handle.read(buffer, 0, wanted, position);
        if (bytesRead === 0) {
          throw new FormatError(
            path,
            `expected ${size} bytes, found ${position}: it was cut while it was read`,
          );
        }
        position += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } catch (error) {
      throw folderError(error, 'read', path);
    } finally {
      if (buffer?.length === SMALL_READ_SIZE && this.#spare.length < MOST_SPARE) this.#spare.push(buffer);
      await handle.close();
    }
  }

  async audit(remembered: readonly LtxFileInfo[] = []): Promise<AuditFindings> {
    const files = await this.list();
    return { files, flaws: flawsOf(files, remembered) };
  }

  async write(target: LtxFileTarget, content: ByteSource, signal?: AbortSignal): Promise<LtxFileInfo> {
    const path = this.#path(target);
    if (target.level === 0 && target.heals === undefined) await this.#expectNewest(path);
    await this.#putter.put(
      path,
      (temporary) => writeSynced(temporary, content(), signal, target.timestampMs),
      async (temporary) => {
        if (target.lease !== undefined) await this.#extras.expectLease(target.lease);
        this.#own.add(versionOf(await stat(temporary, { bigint: true })));
        if (target.level !== 0) {
          if (target.replaces !== undefined) await expectVersion(path, target.replaces);
          await rename(temporary, path);
        } else if (target.heals !== undefined && target.heals !== 'nothing') {
          await expectVersion(path, target.heals);
          await rename(temporary, path);
        } else {
          const given = await linkExclusively(temporary, path);
          if (given === 'taken') throw await conflict(path, 'where this one wanted to put its own');
          if (given === 'linked' && target.heals === undefined) await expectNothingAbove(target, path);
          await unlink(temporary);
        }
      },
    );
    if (target.level === 0 && target.heals === undefined) this.#newest = target;
    return infoOf(target, await stat(path, { bigint: true }));
  }

  async remove(files: readonly LtxFileInfo[], lease?: string): Promise<void> {
    const folders = new Set<string>();
    for (const file of files) {
      const path = this.#path(file);
      try {
        if ((await foundVersion(path)) === undefined) continue;
        if (lease !== undefined) await this.#extras.expectLease(lease);
        if (file.version !== undefined) await expectVersion(path, file.version);
        await unlinkIfThere(path);
        folders.add(dirname(path));
      } catch (error) {
        throw folderError(error, 'remove', path);
      }
    }
    for (const folder of folders) await syncFolder(folder);
  }

  isOwn(file: LtxFileInfo): boolean {
    return file.version !== undefined && this.#own.has(file.version);
  }

  async takeBack(files: readonly LtxFileInfo[]): Promise<number> {
    let taken = 0;
    for (const file of files) {
      try {
        await this.remove([file]);
        if (this.#newest && compareFiles(file, this.#newest) === 0) this.#newest = undefined;
        taken++;
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error;
      }
    }
    return taken;
  }

  watch(signal: AbortSignal): AsyncIterable<LtxFileInfo> {
    return watchFolder(
      { root: this.#root, list: () => this.list(), look: (path) => this.#look(path) },
      signal,
    );
  }

  readExtra(name: string): Promise<Extra | undefined> {
    return this.#extras.read(name);
  }

  writeExtra(name: string, bytes: Uint8Array, replaces?: string): Promise<string> {
    return this.#extras.write(name, bytes, replaces);
  }

  removeExtra(name: string, version?: string): Promise<void> {
    return this.#extras.remove(name, version);
  }

  clock(): Promise<number> {
    return this.#extras.clock();
  }

  async storedMs(files: readonly LtxFileInfo[]): Promise<(number | undefined)[]> {
    const times: (number | undefined)[] = [];
    for (let i = 0; i < files.length; i += STATS_AT_ONCE) {
      const found = files
        .slice(i, i + STATS_AT_ONCE)
        .map((file) => stat(this.#path(file)).catch(() => undefined));
      for (const status of await Promise.all(found)) times.push(status?.ctimeMs);
    }
    return times;
  }

  async close(): Promise<void> {}

  #path(file: LtxName): string {
    return join(this.#root, ltxPath(file));
  }

  async #levels(): Promise<number[]> {
    const folder = join(this.#root, 'ltx');
    return (await namesIn(folder)).map(parseLevel).filter((level) => level !== undefined);
  }

  async #listLevel(level: number): Promise<LtxFileInfo[]> {
    const names = await namesIn(join(this.#root, levelFolder(level)));
    const files: LtxFileInfo[] = [];
    for (let i = 0; i < names.length; i += STATS_AT_ONCE) {
      const batch = names
        .slice(i, i + STATS_AT_ONCE)
        .map((name) => this.#look(`${levelFolder(level)}/${name}`));
      for (const file of await Promise.all(batch)) {
        if (file !== undefined) files.push(file);
      }
    }
    return files;
  }

  /** Undefined for what is no LTX file or is gone. */
  async #look(path: string): Promise<LtxFileInfo | undefined> {
    const name = parseLtxPath(path);
    if (name === undefined) return undefined;
    try {
      const found = await stat(join(this.#root, path), { bigint: true });
      return found.isFile() ? infoOf(name, found) : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw folderError(error, 'look at', join(this.#root, path));
    }
  }

  /** Throws REPLICA if the newest file of level 0, which is never removed, is not there any more. */
  async #expectNewest(path: string): Promise<void> {
    const newest = this.#newest && this.#path(this.#newest);
    if (newest === undefined || (await foundVersion(newest)) !== undefined) return;
    throw new JetliteError('REPLICA', `cannot write ${path}: ${newest}, which stood there before, is gone`, {
      hint: 'Mount the disk or move the folder back. To begin anew in an empty folder, start Jetlite again.',
      away: true,
    });
  }
}
