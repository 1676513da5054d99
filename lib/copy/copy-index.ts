/**
 * The `-shm` of a live copy, as seen by a writer that takes no locks.
 *
 * A reader that finds both headers zero rebuilds the index from the WAL under SQLite's own locks. So this writer only ever
 * does two things to the file: it looks at the header, and it writes zeros over it. What it may find:
 * - `invalid`: nobody has rebuilt it yet, or somebody is at it: the next reader comes to the right end by itself.
 * - `ours`: the end of our last commit.
 * - `older`: the end of an earlier commit of ours. A reader that had begun to rebuild before our commit was in the file has
 *   published what it saw; that can happen any time after the header was zeroed. It is zeroed again.
 * - `foreign`: anything else. Somebody writes the copy, or the file was left by another database.
 *
 * The file belongs to the WAL beside it. Where somebody took its name away, those who have it open go on with it, and see
 * new commits as long as it is zeroed, too.
 */

import fs from 'node:fs';
import { isSameFile, readFully, statPath } from '../capture/files.js';
import { createHandle, type OpenFile, openHandle, releaseHandle } from '../capture/handles.js';
import { decodeWalIndex, WAL_INDEX_HEADER_SIZE } from '../sqlite/wal-index.js';
import type { CopyWal } from './copy-wal.js';

export type IndexState = 'absent' | 'invalid' | 'ours' | 'older' | 'foreign';

const ZEROS = new Uint8Array(96);
const FORMER_KEPT = 8;

export class CopyIndex {
  readonly path: string;
  readonly #bytes = new Uint8Array(WAL_INDEX_HEADER_SIZE);
  #file: OpenFile | undefined;
  /** Files that had the name before and may be in use. */
  #former: OpenFile[] = [];
  /** How often the name came to mean another file. */
  changes = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** The open file, if the path names one. */
  get file(): OpenFile | undefined {
    this.#refresh();
    return this.#file;
  }

  /** Makes an empty file where there is none, so that readers who may not make one find it. */
  create(mode: number): void {
    this.#refresh();
    if (this.#file !== undefined) return;
    try {
      this.#file = createHandle(this.path, mode);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }

  look(wal: CopyWal): IndexState {
    this.#refresh();
    return this.#file === undefined ? 'absent' : this.#lookAt(this.#file, wal);
  }

  /** Zeroes what those who have a former file must not believe any more. */
  lookAtFormer(wal: CopyWal): void {
    for (const file of this.#former) {
      const state = this.#lookAt(file, wal);
      if (state === 'older' || state === 'foreign') zero(file);
    }
  }

  /**
   * Takes the file's name away if it is still the one that was used with a WAL whose name somebody took: a reader that
   * came now would look with it for frames in another WAL.
   */
  leaveWith(): void {
    const named = statPath(this.path);
    if (named === undefined || this.#file === undefined || !isSameFile(named, this.#file)) return;
    fs.rmSync(this.path, { force: true });
    this.#refresh();
  }

  #lookAt({ fd }: OpenFile, wal: CopyWal): IndexState {
    const got = readFully(fd, this.#bytes, WAL_INDEX_HEADER_SIZE, 0);
    const read = decodeWalIndex(this.#bytes.subarray(0, got));
    if (!read.ok) return 'invalid';
    const { maxFrame, salt1, salt2, frameChecksum1, frameChecksum2 } = read.header;
    const { end } = wal;
    // A header without frames names salts that no WAL may ever have.
    if (maxFrame === 0) return end.frame === 0 ? 'ours' : 'older';
    if (salt1 !== end.salt1 || salt2 !== end.salt2) return 'foreign';
    const commit = wal.commitAt(maxFrame);
    if (commit === undefined || commit[0] !== frameChecksum1 || commit[1] !== frameChecksum2)
      return 'foreign';
    return maxFrame === end.frame ? 'ours' : 'older';
  }

  /**
   * Makes the next reader rebuild the index. Only while the WAL holds a commit: rebuilt from an empty one, the header would
   * be the same as all such before, and a connection that saw one of those would keep pages of that time.
   */
  invalidate(): void {
    this.#refresh();
    for (const file of this.#former) zero(file);
    if (this.#file !== undefined) zero(this.#file);
  }

  close(): void {
    for (const file of this.#former) releaseHandle(file);
    this.#former = [];
    if (this.#file !== undefined) releaseHandle(this.#file);
    this.#file = undefined;
  }

  /** Readers remove the file and make it anew. */
  #refresh(): void {
    const named = statPath(this.path);
    if (this.#file !== undefined && named !== undefined && isSameFile(named, this.#file)) return;
    if (this.#file !== undefined) this.#keepFormer(this.#file);
    this.#file = undefined;
    if (named === undefined) return;
    try {
      this.#file = openHandle(this.path, 'write');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  #keepFormer(file: OpenFile): void {
    this.changes++;
    this.#former.push(file);
    if (this.#former.length > FORMER_KEPT) releaseHandle(this.#former.shift()!);
  }
}

function zero({ fd }: OpenFile): void {
  if (fs.fstatSync(fd).size >= ZEROS.length) fs.writeSync(fd, ZEROS, 0, ZEROS.length, 0);
}
