/**
 * What a follower must know of its copy after it was killed: whose copy it is, which TXID it stands at, and where in the
 * WAL that is.
 *
 * 1. Two slots are written in turn, each with a checksum: a write that is cut off leaves the other.
 * 2. A slot is written *before* the commit that it describes is finished. So after a kill the WAL ends where the newer slot
 *    says, or where the older one says; nothing but these two was ours. `confirm` says that the newer one came true.
 * 3. Nothing is synced: after a power cut both the slots and the WAL may be older than they were. The WAL's own checksums
 *    tell where it ends; if no slot says so, the whole database goes in again.
 */

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { dirname } from 'node:path';
import type { WalEnd } from './copy-wal.js';

export interface CopyIdentity {
  /** Where the copy comes from, without credentials. */
  readonly replica: string;
  /** Inode of the database file. */
  readonly inode: string;
  readonly pageSize: number;
}

export interface CopyPosition {
  readonly txid: bigint;
  /** When that state was captured, milliseconds since the epoch. */
  readonly timestampMs: number;
  /** Where it ends in the WAL. */
  readonly end: WalEnd;
  /** Size and time of the database file where the WAL holds nothing: it may not have changed since then. */
  readonly file?: string;
}

export interface RecordedCopy {
  readonly identity: CopyIdentity;
  /** The newer slot first. */
  readonly positions: readonly CopyPosition[];
}

interface Slot extends CopyIdentity, CopyPosition {
  readonly sequence: number;
}

const SLOT_SIZE = 4096;
const VERSION = 1;

export class CopyState {
  readonly path: string;
  #fd: number | undefined;
  #identity: CopyIdentity | undefined;
  #sequence = 0;
  /** The slot that holds what is known to be true. */
  #confirmed: 0 | 1 = 1;

  constructor(path: string) {
    this.path = path;
  }

  /** What the file says; undefined if it is not there or nothing in it can be read. */
  read(): RecordedCopy | undefined {
    let bytes: Buffer;
    try {
      bytes = fs.readFileSync(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    const slots = ([0, 1] as const)
      .map((index) => ({
        index,
        slot: decodeSlot(bytes.subarray(index * SLOT_SIZE, (index + 1) * SLOT_SIZE)),
      }))
      .filter((found): found is { index: 0 | 1; slot: Slot } => found.slot !== undefined)
      .sort((a, b) => b.slot.sequence - a.slot.sequence);
    if (slots.length === 0) return undefined;
    const { index, slot } = slots[0];
    const { replica, inode, pageSize } = slot;
    this.#identity = { replica, inode, pageSize };
    this.#sequence = slot.sequence;
    this.#confirmed = index;
    // A slot of an earlier copy at this place says nothing of this one.
    return {
      identity: this.#identity,
      positions: slots.map((found) => found.slot).filter((found) => found.inode === inode),
    };
  }

  /** Forgets what was there and begins with a position that is true by now. */
  begin(identity: CopyIdentity, position: CopyPosition): void {
    fs.mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    this.#identity = identity;
    this.write(position);
    this.confirm();
  }

  /** Says where the copy is about to stand. Where it stands now stays on record until `confirm`. */
  write(position: CopyPosition): void {
    const index = this.#confirmed === 0 ? 1 : 0;
    this.#put(index, position);
  }

  /** What was written last has come true. */
  confirm(): void {
    this.#confirmed = this.#confirmed === 0 ? 1 : 0;
  }

  /** Which of the positions read, 0 for the newer one, turned out to be true. */
  choose(which: number): void {
    if (which === 1) this.confirm();
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  #put(index: 0 | 1, position: CopyPosition): void {
    this.#fd ??= fs.openSync(this.path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
    const bytes = encodeSlot({ ...this.#identity!, ...position, sequence: ++this.#sequence });
    fs.writeSync(this.#fd, bytes, 0, SLOT_SIZE, index * SLOT_SIZE);
  }
}

function encodeSlot(slot: Slot): Buffer {
  const { replica, inode, pageSize, txid, timestampMs, end, file, sequence } = slot;
  const text = JSON.stringify({
    version: VERSION,
    sequence,
    replica,
    inode,
    pageSize,
    txid: txid.toString(16),
    timestampMs,
    end,
    file,
  });
  const bytes = Buffer.alloc(SLOT_SIZE, ' ');
  bytes[SLOT_SIZE - 1] = 0x0a;
  bytes.write(`${checksumOf(text)} ${text}`);
  return bytes;
}

function decodeSlot(bytes: Buffer): Slot | undefined {
  const text = bytes.toString().trimEnd();
  const at = text.indexOf(' ');
  const json = text.slice(at + 1);
  if (at === -1 || text.slice(0, at) !== checksumOf(json)) return undefined;
  const { version, txid, ...rest } = JSON.parse(json);
  if (version !== VERSION) return undefined;
  return { ...rest, txid: BigInt(`0x${txid}`) } as Slot;
}

function checksumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
