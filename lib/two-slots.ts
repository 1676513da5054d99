/**
 * Small records that survive a kill at any moment: a file of two slots, to be written in turn, each with a checksum. A
 * write that is cut off leaves the other slot. Nothing is synced, so a record costs microseconds; after a machine's crash
 * both may be older than they were, or gone.
 */

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { makeFolderSync } from './make-folder.js';

export type SlotIndex = 0 | 1;

export interface FoundSlot {
  readonly index: SlotIndex;
  readonly text: string;
}

const SLOT_SIZE = 4096;
const writeLater = promisify(fs.write);

export class TwoSlots {
  readonly path: string;
  #fd: number | undefined;

  /** @param path of a file that the first write makes, with its folder */
  constructor(path: string) {
    this.path = path;
  }

  /**
   * The slots that are sound, in the order in which they lie in the file; none if there is no file.
   * @throws the system's errors if it cannot be read
   */
  read(): FoundSlot[] {
    let bytes: Buffer;
    try {
      bytes = fs.readFileSync(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    const found: FoundSlot[] = [];
    for (const index of [0, 1] as const) {
      const text = decode(bytes.subarray(index * SLOT_SIZE, (index + 1) * SLOT_SIZE));
      if (text !== undefined) found.push({ index, text });
    }
    return found;
  }

  /** Replaces what a slot holds. `text` is of one line and, with its checksum, of 4,095 bytes at most. */
  write(index: SlotIndex, text: string): void {
    fs.writeSync(this.#open(), encode(text), 0, SLOT_SIZE, index * SLOT_SIZE);
  }

  /** The same, but not on the event loop: even an unsynced write waits when the file system commits its journal. */
  async writeLater(index: SlotIndex, text: string): Promise<void> {
    await writeLater(this.#open(), encode(text), 0, SLOT_SIZE, index * SLOT_SIZE);
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  #open(): number {
    if (this.#fd === undefined) {
      makeFolderSync(dirname(this.path));
      this.#fd = fs.openSync(this.path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
    }
    return this.#fd;
  }
}

function encode(text: string): Buffer {
  const record = Buffer.from(`${checksumOf(text)} ${text}`);
  if (record.length >= SLOT_SIZE)
    throw new RangeError(`a record of ${record.length} bytes is too large for its slot`);
  const bytes = Buffer.alloc(SLOT_SIZE, ' ');
  record.copy(bytes);
  bytes[SLOT_SIZE - 1] = 0x0a;
  return bytes;
}

function decode(bytes: Buffer): string | undefined {
  const record = bytes.toString().trimEnd();
  const at = record.indexOf(' ');
  const text = record.slice(at + 1);
  return at !== -1 && record.slice(0, at) === checksumOf(text) ? text : undefined;
}

function checksumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
