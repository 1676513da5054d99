/**
 * What a follower must know of its copy after it was killed: whose copy it is, which TXID it stands at, and where in the
 * WAL that is.
 *
 * 1. Two slots are written in turn (two-slots.ts): a write that is cut off leaves the other.
 * 2. A slot is written *before* the commit that it describes is finished. So after a kill the WAL ends where the newer slot
 *    says, or where the older one says; nothing but these two was ours. `confirm` says that the newer one came true.
 *    The same goes for a checkpoint, which is written down before it is asked for.
 * 3. Nothing is synced: after a power cut both the slots and the WAL may be older than they were. The WAL's own checksums
 *    tell where it ends; if no slot says so, the whole database goes in again.
 */

import { type SlotIndex, TwoSlots } from '../two-slots.js';
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
  /** Where a checkpoint is to empty the WAL: which file that is. An empty one that is another says nothing. */
  readonly emptied?: string;
}

export interface RecordedCopy {
  readonly identity: CopyIdentity;
  /** The newer slot first. */
  readonly positions: readonly CopyPosition[];
}

interface Slot extends CopyIdentity, CopyPosition {
  readonly sequence: number;
}

const VERSION = 1;

export class CopyState {
  readonly #slots: TwoSlots;
  #identity: CopyIdentity | undefined;
  #sequence = 0;
  /** The slot that holds what is known to be true. */
  #confirmed: SlotIndex = 1;

  constructor(path: string) {
    this.#slots = new TwoSlots(path);
  }

  /** What the file says; undefined if it is not there or nothing in it can be read. */
  read(): RecordedCopy | undefined {
    const slots = this.#slots
      .read()
      .map(({ index, text }) => ({ index, slot: decodeSlot(text) }))
      .filter((found): found is { index: SlotIndex; slot: Slot } => found.slot !== undefined)
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
    this.#identity = identity;
    this.write(position);
    this.confirm();
  }

  /** From the next position on the replica is called that. */
  follow(replica: string): void {
    this.#identity = { ...this.#identity!, replica };
  }

  /** Says where the copy is about to stand. Where it stands now stays on record until `confirm`. */
  write(position: CopyPosition): void {
    const index = this.#confirmed === 0 ? 1 : 0;
    this.#slots.write(index, encodeSlot({ ...this.#identity!, ...position, sequence: ++this.#sequence }));
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
    this.#slots.close();
  }
}

function encodeSlot({ txid, ...rest }: Slot): string {
  return JSON.stringify({ version: VERSION, ...rest, txid: txid.toString(16) });
}

function decodeSlot(text: string): Slot | undefined {
  const { version, txid, ...rest } = JSON.parse(text);
  if (version !== VERSION) return undefined;
  return { ...rest, txid: BigInt(`0x${txid}`) } as Slot;
}
