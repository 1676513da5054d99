/**
 * LTX files on this machine's disk: those that the replica has not got yet, and those that it got a short while ago.
 *
 * Invariants:
 * 1. Records stand in the order of their TXIDs, each naming the checksum of the file before it, in segment files that are
 *    only appended to and removed as a whole. What a process finds there it never writes into. A segment has no hole;
 *    between two there may be one, where a file was put without coming by here.
 * 2. What an earlier process left counts only if its bytes are whole (spool-record.ts) and if it follows, without a hole,
 *    the file that the replica shows as its newest (`takeUp`). A torn end, a foreign file or a damaged byte ends the
 *    chain there.
 * 3. Nothing waits for the disk except where `sync` is called: a killed process loses nothing that was written, and what
 *    a machine's crash tears is found by 2.
 * 4. What the replica has (`release`) is removed once it is old enough or takes too much room; what it has not got never
 *    is, but no more is taken beyond `maxBytes`.
 */

import { type FileHandle, open, unlink } from 'node:fs/promises';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { bootId, decodeIntent, encodeIntent, type ResumePoint } from '../../capture/resume-state.js';
import { Crc64 } from '../../ltx/crc64.js';
import { makeFolder } from '../../replica/durable-file.js';
import type { ByteSource } from '../../replica/replica.js';
import { trailerChecksum } from '../rebuild/trailer.js';
import {
  contentOffset,
  encodeRecordHeader,
  isWhole,
  pointOffset,
  readBytes,
  readRecordHeader,
  recordEnd,
  SPOOL_HEADER_SIZE,
  type SpoolEntry,
  type SpoolRecord,
} from './spool-record.js';
import { loadSegments, type Segment, segmentName } from './spool-segment.js';

export interface SpoolOptions {
  /** Of all that is kept, bytes. */
  readonly maxBytes: number;
  /** How much of what the replica has is kept, bytes; 0 for nothing. */
  readonly keepBytes: number;
  /** Hears once when the folder cannot be written, and again after it could. */
  readonly onTrouble: (message: string) => void;
}

/** A file of the spool, its bytes checked. */
export interface SpooledFile extends Omit<SpoolRecord, 'offset' | 'pointSize'> {
  /** Good until the record is released. */
  readonly content: ByteSource;
  /** Where capture stood behind it; undefined if that was in another boot of the machine. */
  readonly point: ResumePoint | undefined;
}

/** What became of a file that was to be spooled. */
export type Appended = 'written' | 'full' | 'failed';

const SEGMENT_BYTES = 8 * 1024 * 1024;
const SEGMENT_MS = 60_000;
/** Servers write to disk every two minutes by default; an audit comes every ten. */
const KEEP_MS = 12 * 60_000;

export class Spool {
  readonly folder: string;
  readonly #options: SpoolOptions;
  readonly #boot = bootId();
  /** In the order of their TXIDs; the last one is being written if `#handle` is set. */
  readonly #segments: Segment[] = [];
  #handle: FileHandle | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #released = 0n;
  #isTroubled = false;
  /** The segment read last, and the record after the one that was read. */
  #reading:
    | { readonly segment: Segment; readonly handle: FileHandle; next: number; nextTxid: bigint }
    | undefined;

  private constructor(folder: string, options: SpoolOptions) {
    this.folder = folder;
    this.#options = options;
  }

  /** The spool in a folder, which need not exist. Everything found there is checked; what does not hold is removed. */
  static async open(folder: string, options: SpoolOptions): Promise<Spool> {
    const spool = new Spool(folder, options);
    spool.#segments.push(...(await loadSegments(folder)));
    return spool;
  }

  /** The newest TXID here; 0 if there is none. */
  get lastTxid(): bigint {
    return this.#segments.at(-1)?.last ?? 0n;
  }

  /** Whether files that the replica has are kept for a while. */
  get keeps(): boolean {
    return this.#options.keepBytes > 0;
  }

  /** Bytes on disk. */
  get bytes(): number {
    return this.#segments.reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Adds a file behind the last one. A file that is there already is `written`.
   * @param entry where `previousChecksum` counts only if the file before it is not here
   * @param blocks the LTX file's bytes
   */
  append(
    entry: SpoolEntry,
    point: ResumePoint,
    blocks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  ): Promise<Appended> {
    return this.#inTurn(() => this.#append(entry, point, blocks));
  }

  /** The file of that TXID, if it is here and whole. */
  read(txid: bigint): Promise<SpooledFile | undefined> {
    return this.#inTurn(() => this.#read(txid));
  }

  /** Makes what was written survive a crash of the machine. */
  sync(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#handle?.sync().catch((error: unknown) => this.#trouble(error));
    });
  }

  /** The replica has everything up to this TXID. */
  release(txid: bigint): void {
    this.#released = txid;
    const oldest = this.#segments[0];
    if (oldest === undefined || oldest.last > txid || !this.#isUnneeded(oldest)) return;
    void this.#inTurn(() => this.#prune());
  }

  /**
   * Finds out what of an earlier process's files may still be put: those that follow the replica's newest file without a
   * hole. All others are forgotten.
   * @param txid of the replica's newest file, over all levels; 0 if it is empty
   * @param fileChecksum the one in its trailer; 0 if the replica is empty
   * @param isKnownOurs it is certain that the replica's newest file is ours, even if nothing here says so
   * @returns the last of those that follow, `txid` if none does; and how many were forgotten
   */
  takeUp(
    txid: bigint,
    fileChecksum: bigint,
    isKnownOurs = false,
  ): Promise<{ readonly lastTxid: bigint; readonly forgotten: bigint }> {
    return this.#inTurn(() => this.#takeUp(txid, fileChecksum, isKnownOurs));
  }

  /** Forgets everything. */
  clear(): Promise<void> {
    return this.#inTurn(() => this.#clear());
  }

  async close(): Promise<void> {
    await this.#inTurn(async () => {
      // A later process has no use for what the replica has, and need not wonder whether it has it.
      if (this.lastTxid <= this.#released) await this.#clear();
      await this.#stopReading();
      await this.#handle?.close();
      this.#handle = undefined;
    });
  }

  /** One thing after the other; none of them rejects. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(work);
    this.#tail = done.catch(() => undefined);
    return done;
  }

  async #append(
    entry: SpoolEntry,
    point: ResumePoint,
    blocks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  ): Promise<Appended> {
    if (entry.txid <= this.lastTxid) return 'written';
    try {
      const written = await this.#write(entry, point, blocks);
      if (written === 'full') await this.#takeBack();
      else this.#isTroubled = false;
      return written;
    } catch (error) {
      await this.#takeBack().catch(() => undefined);
      this.#trouble(error);
      return 'failed';
    }
  }

  async #write(
    entry: SpoolEntry,
    point: ResumePoint,
    blocks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  ): Promise<Appended> {
    const { maxBytes } = this.#options;
    if (this.bytes >= maxBytes) await this.#prune();
    const segment = await this.#segmentFor(entry);
    const handle = this.#handle!;
    const offset = segment.size;
    const others = this.bytes - segment.size;
    const crc = new Crc64();
    let at = offset + SPOOL_HEADER_SIZE;
    let end: Uint8Array = new Uint8Array();
    const put = async (bytes: Uint8Array): Promise<void> => {
      crc.update(bytes);
      for (let from = 0; from < bytes.length; ) {
        const { bytesWritten } = await handle.write(bytes, from, bytes.length - from, at);
        from += bytesWritten;
        at += bytesWritten;
      }
    };
    for await (const block of blocks) {
      if (others + at + block.length > maxBytes) return 'full';
      await put(block);
      end = block;
    }
    const size = at - offset - SPOOL_HEADER_SIZE;
    const fileChecksum = trailerChecksum(end);
    const bytes = this.#boot && encodeIntent({ txid: entry.txid, fileChecksum, point }, this.#boot);
    if (bytes) await put(bytes);
    const pointSize = bytes ? bytes.length : 0;
    const previousChecksum = segment.size === 0 ? segment.previousChecksum : segment.lastChecksum;
    const record = { ...entry, previousChecksum, fileChecksum, size, pointSize, offset };
    await handle.write(encodeRecordHeader(record, crc), 0, SPOOL_HEADER_SIZE, offset);
    segment.size = recordEnd(record);
    segment.last = entry.txid;
    segment.lastChecksum = fileChecksum;
    segment.writtenAt = performance.now();
    return 'written';
  }

  /** Nothing is left of a record that was not finished. */
  async #takeBack(): Promise<void> {
    const segment = this.#segments.at(-1);
    if (segment?.size === 0) await this.#remove(segment);
    else if (segment !== undefined) await this.#handle?.truncate(segment.size);
  }

  /** The segment to append to: the last one, or a new one. */
  async #segmentFor({ txid, previousChecksum }: SpoolEntry): Promise<Segment> {
    const current = this.#segments.at(-1);
    const now = performance.now();
    if (this.#handle !== undefined && current !== undefined) {
      const isOld = current.last <= this.#released && now - current.writtenAt > SEGMENT_MS;
      if (current.last + 1n === txid && current.size < SEGMENT_BYTES && !isOld) return current;
      await this.#handle.close();
      this.#handle = undefined;
    }
    await makeFolder(this.folder);
    const file = segmentName(txid);
    this.#handle = await open(path.join(this.folder, file), 'wx', 0o600);
    const segment = {
      file,
      first: txid,
      previousChecksum: current?.last === txid - 1n ? current.lastChecksum : previousChecksum,
      last: txid - 1n,
      lastChecksum: 0n,
      size: 0,
      writtenAt: now,
    };
    this.#segments.push(segment);
    return segment;
  }

  async #read(txid: bigint): Promise<SpooledFile | undefined> {
    const segment = this.#segments.find(({ first, last }) => first <= txid && txid <= last);
    if (segment === undefined) return undefined;
    try {
      if (this.#reading?.segment !== segment || this.#reading.nextTxid > txid) {
        await this.#stopReading();
        const handle = await open(path.join(this.folder, segment.file), 'r');
        this.#reading = { segment, handle, next: 0, nextTxid: segment.first };
      }
      const reading = this.#reading;
      for (;;) {
        const record = await readRecordHeader(reading.handle, reading.next, segment.size);
        if (record?.txid !== reading.nextTxid) return undefined;
        reading.next = recordEnd(record);
        reading.nextTxid++;
        if (record.txid !== txid) continue;
        return (await isWhole(reading.handle, record))
          ? await this.#spooled(segment, reading.handle, record)
          : undefined;
      }
    } catch {
      return undefined;
    }
  }

  async #spooled(segment: Segment, handle: FileHandle, record: SpoolRecord): Promise<SpooledFile> {
    const bytes = Buffer.alloc(record.pointSize);
    await handle.read(bytes, 0, bytes.length, pointOffset(record));
    const { offset, pointSize, ...entry } = record;
    const file = path.join(this.folder, segment.file);
    return {
      ...entry,
      point: decodeIntent(bytes, this.#boot)?.point,
      content: async function* () {
        const own = await open(file, 'r');
        try {
          yield* readBytes(own, contentOffset(record), record.size);
        } finally {
          await own.close();
        }
      },
    };
  }

  async #takeUp(
    txid: bigint,
    fileChecksum: bigint,
    isKnownOurs: boolean,
  ): Promise<{ lastTxid: bigint; forgotten: bigint }> {
    const here = await this.#checksumOf(txid);
    // The last file put may be missing here: it is kept only after it was put, and a large one not at all.
    const isOurs =
      here === fileChecksum ||
      (here === undefined && isKnownOurs) ||
      this.#segments.some(
        (segment) => segment.first === txid + 1n && segment.previousChecksum === fileChecksum,
      );
    let lastTxid = txid;
    let lastChecksum = fileChecksum;
    let forgotten = 0n;
    for (const segment of [...this.#segments]) {
      const { first, last, previousChecksum } = segment;
      const follows = first <= lastTxid || (first === lastTxid + 1n && previousChecksum === lastChecksum);
      if (isOurs && follows) {
        if (last > lastTxid) [lastTxid, lastChecksum] = [last, segment.lastChecksum];
      } else {
        if (last > txid || !isOurs) forgotten += last - first + 1n;
        await this.#remove(segment);
      }
    }
    if (isOurs) this.#released = txid;
    return { lastTxid, forgotten };
  }

  async #checksumOf(txid: bigint): Promise<bigint | undefined> {
    return (await this.#read(txid))?.fileChecksum;
  }

  #isUnneeded(segment: Segment): boolean {
    if (segment.last > this.#released) return false;
    if (performance.now() - segment.writtenAt > KEEP_MS) return true;
    const kept = this.#segments.reduce((sum, { last, size }) => sum + (last <= this.#released ? size : 0), 0);
    return kept > this.#options.keepBytes || this.bytes >= this.#options.maxBytes;
  }

  async #prune(): Promise<void> {
    for (let oldest = this.#segments[0]; oldest !== undefined; oldest = this.#segments[0]) {
      if (!this.#isUnneeded(oldest)) return;
      await this.#remove(oldest);
    }
  }

  async #clear(): Promise<void> {
    for (const segment of [...this.#segments]) await this.#remove(segment);
  }

  async #remove(segment: Segment): Promise<void> {
    if (this.#reading?.segment === segment) await this.#stopReading();
    if (segment === this.#segments.at(-1)) {
      await this.#handle?.close();
      this.#handle = undefined;
    }
    this.#segments.splice(this.#segments.indexOf(segment), 1);
    await unlink(path.join(this.folder, segment.file)).catch(() => undefined);
  }

  async #stopReading(): Promise<void> {
    await this.#reading?.handle.close();
    this.#reading = undefined;
  }

  #trouble(error: unknown): void {
    if (this.#isTroubled) return;
    this.#isTroubled = true;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    this.#options.onTrouble(
      `${this.folder} cannot be written (${code}): what waits for the replica stays in memory`,
    );
  }
}
