/**
 * Writes pages into a database file being rebuilt: pages that follow one another are gathered into large writes, of which a
 * few are under way while the next pages are decompressed.
 *
 * 1. Pages come in ascending order between two calls of `settle`, so no two writes under way touch the same bytes.
 * 2. In a file that has never been written, a page of zeros is left out: the file has a hole there, which reads as zeros.
 */

import { writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';

const BUFFER_SIZE = 1024 * 1024;
const BUFFER_COUNT = 4;
/** Below this a write costs less than handing it to another thread. */
const SMALL_WRITE = 64 * 1024;

export class PageWriter {
  readonly #file: FileHandle;
  readonly #pageSize: number;
  readonly #zeros: Uint8Array;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #buffers = 1;
  #buffer = new Uint8Array(BUFFER_SIZE);
  /** Where the bytes in #buffer go. */
  #offset = 0;
  #length = 0;
  #failure: unknown;

  /** `pageSize`: bytes, a power of two up to 65536. */
  constructor(file: FileHandle, pageSize: number) {
    this.#file = file;
    this.#pageSize = pageSize;
    this.#zeros = new Uint8Array(pageSize);
  }

  /**
   * Takes a copy of a page. A promise means: wait for it before the next call. `skipZeros` only while nothing has been
   * written at or behind this page.
   */
  write(pgno: number, page: Uint8Array, skipZeros: boolean): Promise<void> | undefined {
    if (skipZeros && this.#isZero(page)) return undefined;
    const offset = (pgno - 1) * this.#pageSize;
    let wait: Promise<void> | undefined;
    if (offset !== this.#offset + this.#length) {
      wait = this.#send();
      // The buffer to copy into exists only once there is a free one.
      if (wait !== undefined) return wait.then(() => this.write(pgno, page, skipZeros));
      this.#offset = offset;
    }
    this.#buffer.set(page, this.#length);
    this.#length += page.length;
    return this.#length === this.#buffer.length ? this.#send() : undefined;
  }

  /** Resolves when everything written so far is in the file (not yet durable). */
  async settle(): Promise<void> {
    await this.#send();
    await Promise.all(this.#underWay);
    this.#throwFailure();
  }

  /** Forgets what is gathered and waits for the writes under way, whatever becomes of them. */
  async abandon(): Promise<void> {
    this.#length = 0;
    await Promise.all(this.#underWay);
  }

  /** Starts writing what is gathered. A promise: no buffer is free until it resolves. */
  #send(): Promise<void> | undefined {
    this.#throwFailure();
    const length = this.#length;
    if (length === 0) return undefined;
    const buffer = this.#buffer;
    const offset = this.#offset;
    this.#offset += length;
    this.#length = 0;
    if (length <= SMALL_WRITE) {
      for (let at = 0; at < length; ) {
        at += writeSync(this.#file.fd, buffer, at, length - at, offset + at);
      }
      return undefined;
    }
    const write = writeAll(this.#file, buffer, length, offset)
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .then(() => {
        this.#free.push(buffer);
        this.#underWay.delete(write);
      });
    this.#underWay.add(write);
    return this.#takeBuffer();
  }

  #takeBuffer(): Promise<void> | undefined {
    const free = this.#free.pop() ?? (this.#buffers < BUFFER_COUNT ? this.#makeBuffer() : undefined);
    if (free === undefined) return Promise.race(this.#underWay).then(() => this.#takeBuffer());
    this.#buffer = free;
    return undefined;
  }

  #makeBuffer(): Uint8Array<ArrayBuffer> {
    this.#buffers++;
    return new Uint8Array(BUFFER_SIZE);
  }

  #isZero(page: Uint8Array): boolean {
    // Nearly every page that is not zeros shows it in its first bytes.
    return (page[0] | page[1] | page[2] | page[3]) === 0 && Buffer.compare(page, this.#zeros) === 0;
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, length: number, offset: number): Promise<void> {
  for (let at = 0; at < length; ) {
    at += (await file.write(bytes, at, length - at, offset + at)).bytesWritten;
  }
}
