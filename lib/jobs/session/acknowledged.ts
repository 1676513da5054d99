/**
 * The highest TXID that a replica ever acknowledged, kept in the state folder. A replica that shows less has lost
 * something: its numbers must not be given again, since whoever followed it may have seen what they once named.
 *
 * Written after each acknowledgement, without a sync and without being waited for: what a killed process wrote stays,
 * and a machine's crash costs some seconds of it.
 */

import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Crc64 } from '../../ltx/crc64.js';
import { makeFolderSync } from '../../make-folder.js';

const FILE = 'acknowledged';
/** TXID and CRC-64 of it, both u64, big-endian. */
const SIZE = 16;
const write = promisify(fs.write);

/** What an earlier run, or this one, left in the folder; 0 if nothing can be read. */
export function readAcknowledged(folder: string): bigint {
  let bytes: Buffer;
  try {
    bytes = fs.readFileSync(path.join(folder, FILE));
  } catch {
    return 0n;
  }
  if (bytes.length !== SIZE || bytes.readBigUInt64BE(8) !== checksumOf(bytes)) return 0n;
  return bytes.readBigUInt64BE(0);
}

/** Writes it down once. */
export async function writeAcknowledged(folder: string, txid: bigint): Promise<void> {
  const mark = new AcknowledgedMark(folder);
  mark.set(txid);
  await mark.close();
}

/** Writes it down as it grows. */
export class AcknowledgedMark {
  readonly #folder: string;
  #fd: number | undefined;
  #txid = 0n;
  #writing: Promise<void> | undefined;
  #unwritable = false;

  constructor(folder: string) {
    this.#folder = folder;
  }

  set(txid: bigint): void {
    this.#txid = txid;
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves when it is written. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** A folder that cannot be written is told of by those who need it more. */
  async #write(): Promise<void> {
    try {
      for (let written = 0n; written !== this.#txid && !this.#unwritable; ) {
        written = this.#txid;
        this.#fd ??= this.#open();
        await write(this.#fd, encode(written), 0, SIZE, 0);
      }
    } catch {
      this.#unwritable = true;
    }
  }

  #open(): number {
    makeFolderSync(this.#folder);
    return fs.openSync(path.join(this.#folder, FILE), fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  }
}

function encode(txid: bigint): Buffer {
  const bytes = Buffer.alloc(SIZE);
  bytes.writeBigUInt64BE(txid, 0);
  bytes.writeBigUInt64BE(checksumOf(bytes), 8);
  return bytes;
}

function checksumOf(bytes: Buffer): bigint {
  const crc = new Crc64();
  crc.update(bytes, 0, 8);
  return crc.value();
}
