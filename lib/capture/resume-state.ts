/**
 * What capture must remember to go on after its process has ended, however it ended.
 *
 * Invariants:
 * 1. The *resume point* is written before its TXID is put, so it may name one that never was: it counts only for the
 *    TXID, and the file checksum, that the replica really has.
 * 2. A point is one write into one of two slots in turn (two-slots.ts), without a sync. A killed process loses nothing it
 *    has written; after a machine's crash the boot id differs, and the point is not used.
 * 3. The *page sums* are written now and then, under a temporary name, synced and renamed, with the TXID and the file
 *    checksum they belong to. What the replica holds beyond that is read from there.
 * 4. Losing any of it costs reading: an image is compared with the replica's state instead. So a folder that cannot be
 *    written is told once and otherwise borne.
 */

import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { makeFolderSync } from '../make-folder.js';
import { type SlotIndex, TwoSlots } from '../two-slots.js';
import type { CountReading } from './change-count.js';
import type { ChainPosition } from './frame-reader.js';
import type { PageSums } from './page-sums.js';
import { encodeSums, SumsDecoder, type SumsOrigin } from './sums-format.js';
import type { QuietState } from './wal-lifetimes.js';

export type { SumsOrigin } from './sums-format.js';

/** Where capture stood when a batch was taken. */
export interface ResumePoint {
  readonly database: { readonly dev: bigint; readonly ino: bigint };
  /** Set while a `-wal` is followed. */
  readonly wal:
    | {
        readonly dev: bigint;
        readonly ino: bigint;
        readonly position: ChainPosition;
        readonly counted: CountReading | undefined;
        readonly pageCount: number;
      }
    | undefined;
  /** Set while there is none. */
  readonly quiet: QuietState | undefined;
}

/** A TXID that was put, or was about to be. */
export interface Intent {
  readonly txid: bigint;
  /** The checksum in the LTX file's trailer. */
  readonly fileChecksum: bigint;
  readonly point: ResumePoint;
}

const fsync = promisify(fs.fsync);

const POINT_FILE = 'position';
const SUMS_FILE = 'page-sums';
/** Names this boot of the machine; undefined where the system does not tell, and then no point is ever resumed. */
export function bootId(): string | undefined {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** An intent as bytes, with the boot of the machine that it is good for. */
export function encodeIntent(intent: Intent, boot: string): Buffer {
  return Buffer.from(JSON.stringify({ bootId: boot, intent }, bigintToText));
}

/** What `encodeIntent` made in this boot of the machine; undefined if in another one, or if the bytes are damaged. */
export function decodeIntent(bytes: Uint8Array, boot: string | undefined): Intent | undefined {
  try {
    const content = JSON.parse(Buffer.from(bytes).toString('utf8'), textToBigint) as {
      bootId: string;
      intent: Intent;
    };
    return content.bootId === boot ? content.intent : undefined;
  } catch {
    return undefined;
  }
}

/** The state of one database towards one replica, in a folder of its own. */
export class ResumeState {
  readonly folder: string;
  readonly #bootId = bootId();
  readonly #onTrouble: (message: string) => void;
  readonly #slots: TwoSlots;
  #nextSlot: SlotIndex = 0;
  #unwritable = false;

  /** @param onTrouble is told once if the folder cannot be written */
  constructor(folder: string, onTrouble: (message: string) => void) {
    this.folder = folder;
    this.#slots = new TwoSlots(path.join(folder, POINT_FILE));
    this.#onTrouble = onTrouble;
  }

  /** Remembers where capture will stand once `intent.txid` is in the replica. The one written before it is kept too. */
  async writePoint(intent: Intent): Promise<void> {
    if (this.#bootId === undefined || this.#unwritable) return;
    try {
      await this.#slots.writeLater(this.#nextSlot, encodeIntent(intent, this.#bootId).toString());
      this.#nextSlot = this.#nextSlot === 0 ? 1 : 0;
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** The points of the last two TXIDs; none after a reboot or if nothing can be read. */
  readPoints(): Intent[] {
    try {
      return this.#slots
        .read()
        .map(({ text }) => decodeIntent(Buffer.from(text), this.#bootId))
        .filter((intent) => intent !== undefined);
    } catch {
      return [];
    }
  }

  /** Remembers the sums, which must describe the state of `origin` when this is called; they may change while it waits. */
  async writeSums(sums: PageSums, origin: SumsOrigin, pageSize: number): Promise<void> {
    if (this.#unwritable) return;
    try {
      await this.#replaceSums(sums, origin, pageSize);
    } catch (error) {
      this.#giveUp(error);
    }
  }

  async #replaceSums(sums: PageSums, origin: SumsOrigin, pageSize: number): Promise<void> {
    makeFolderSync(this.folder);
    const file = path.join(this.folder, SUMS_FILE);
    const temporary = `${file}.${process.pid}.tmp`;
    const fd = fs.openSync(temporary, 'w', 0o600);
    try {
      for (const bytes of encodeSums(sums, origin, pageSize)) fs.writeSync(fd, bytes);
      await fsync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(temporary, file);
  }

  /**
   * Loads what `writeSums` wrote into empty `sums`.
   * @returns what they describe; undefined, and `sums` empty, if there are none of this page size or they are damaged
   */
  readSums(sums: PageSums, pageSize: number): SumsOrigin | undefined {
    let fd: number;
    try {
      fd = fs.openSync(path.join(this.folder, SUMS_FILE), 'r');
    } catch {
      return undefined;
    }
    try {
      const origin = loadSums(fd, sums, pageSize);
      if (origin === undefined) sums.clear();
      return origin;
    } finally {
      fs.closeSync(fd);
    }
  }

  #giveUp(error: unknown): void {
    this.#unwritable = true;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    this.#onTrouble(
      `${this.folder} cannot be written (${code}): after a restart the whole database is compared anew`,
    );
  }

  close(): void {
    this.#slots.close();
  }
}

function loadSums(fd: number, sums: PageSums, pageSize: number): SumsOrigin | undefined {
  const decoder = new SumsDecoder(sums, pageSize);
  const chunk = new Uint8Array(64 * 1024);
  for (;;) {
    const got = fs.readSync(fd, chunk, 0, chunk.length, null);
    if (got === 0) return decoder.end();
    if (got % 8 !== 0 || !decoder.push(chunk.subarray(0, got))) return undefined;
  }
}

function bigintToText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? { bigint: value.toString() } : value;
}

function textToBigint(_key: string, value: unknown): unknown {
  if (typeof value === 'object' && value !== null && 'bigint' in value) return BigInt(String(value.bigint));
  return value;
}
