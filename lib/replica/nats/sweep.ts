/**
 * What nobody can see and nothing needs: marks of objects that were removed long ago, and chunks that no meta names.
 *
 * Marks, of this prefix only. A mark says that its name is taken for ever. That keeps a second writer from creating it:
 *
 * 1. One whose connection stood all the while. Its meta goes out only while the listing is live on that very connection
 *    (replica.ts, invariant 3), so what it does not know of is younger than the moments its server takes to answer, or,
 *    where the process slept, to drop a silent connection (six minutes unless configured otherwise). Marks are kept
 *    for an hour.
 * 2. One that connects anew lists everything first, and finds the newest file of level 0. That one is never removed, so a
 *    mark goes only if such a file stands above it.
 *
 * A mark also tells an audit that a file was removed, not lost: see `isOutlived`. It goes by its sequence: if something
 * was put under the name meanwhile, that stays.
 *
 * Chunks, of the whole bucket, whoever put them. Those of a nuid are purged by their exact subject, if
 *
 * 3. no meta but a mark names the nuid. They are counted first, then every meta is read, then those that come meanwhile,
 *    up to the newest that the leader has just before each purge. A nuid that was named once counts as named, so an object
 *    that is renamed meanwhile is safe;
 * 4. every meta was read and understood: as many as the consumer was to deliver, and each subject that the stream says it
 *    has. Otherwise nothing is purged;
 * 5. the newest of the chunks is older than a day by the server's clock. A meta follows the last chunk at once; Jetlite
 *    counts the chunks before it publishes one after a longer upload (put.ts), so that of the programs that it knows
 *    none is hurt even if its machine slept for days in the middle of an upload;
 * 6. no put of this process is at it;
 * 7. the bucket is not filled from another one, where a chunk can be followed by its meta whenever the way is free again.
 */

import { throwIfAborted } from '../../errors.js';
import { isExtraPath, parseLtxPath } from '../names.js';
import type { LtxFileInfo, SweepOptions, Swept } from '../replica.js';
import type { Bucket } from './bucket.js';
import type { Delivery } from './consumer.js';
import { Api, apiCode, requestError } from './errors.js';
import { type OpenMetas, openMetas } from './metas.js';
import {
  chunkCounts,
  chunkSubject,
  decodeMeta,
  getMessage,
  metaFilter,
  newestMeta,
  purgeUpTo,
  subjectCounts,
} from './objects.js';
import { isBeingPut } from './put.js';

const MARK_AGE_MS = 3_600_000;
const UPLOAD_AGE_MS = 86_400_000;
/** What is left is for the next time. */
const MOST_MARKS = 20_000;
const MOST_UPLOADS = 1000;
const PURGES_AT_ONCE = 8;
/** Marks between two looks at the lease. */
const BATCH = 256;
const REACH_MS = 5000;

export interface SweepTarget {
  readonly bucket: Bucket;
  /** Of the names whose marks go. */
  readonly prefix: string;
  /** By the server's clock. */
  readonly nowMs: number;
  /** Throws LeaseLostError if it no longer stands. */
  readonly expectLease: () => Promise<void>;
}

/** Throws LeaseLostError, ABORTED, REPLICA. What was removed until then is gone. */
export async function sweep(target: SweepTarget, options: SweepOptions = {}): Promise<Swept> {
  const { bucket } = target;
  const counts = bucket.isCopy ? new Map<string, number>() : await chunkCounts(bucket);
  const pass = new Pass(target, options, counts.keys());
  const metas = await openMetas(bucket, () => pass.begin()).catch((error: unknown) => {
    throw requestError(error, 'look for leftovers', bucket.name, bucket.link.url);
  });
  try {
    const marks = await pass.purgeMarks();
    const { uploads, obstacle } = await pass.purgeUploads(metas);
    return { marks, uploads, isDone: pass.isDone, ...(obstacle !== undefined && { obstacle }) };
  } finally {
    metas.consumer.close();
  }
}

/**
 * Whether a file that is gone without a mark, and was last seen at `seenMs`, may have been removed so long ago that its
 * mark went, too: of the files that stand there is one by which retention could remove it.
 */
export function isOutlived(file: LtxFileInfo, standing: readonly LtxFileInfo[], seenMs: number): boolean {
  if (Date.now() - seenMs < MARK_AGE_MS) return false;
  return standing.some(({ level, minTxid, maxTxid }) => {
    if (maxTxid < file.maxTxid) return false;
    return minTxid === 1n || (file.level === 0 && level === 1 && minTxid <= file.minTxid);
  });
}

interface Mark {
  readonly subject: string;
  readonly sequence: number;
  /** At level 0. */
  readonly txid: bigint | undefined;
}

class Pass {
  readonly #target: SweepTarget;
  readonly #options: SweepOptions;
  readonly #nuids: readonly string[];
  /** Nuids that have chunks, less those that a meta names. */
  #unnamed = new Set<string>();
  #seen = new Set<string>();
  #marks: Mark[] = [];
  #highestLevel0 = 0n;
  #sequence = 0;
  #unreadable: string | undefined;
  #failure: Error | undefined;
  #wake: () => void = () => {};
  #isDone = true;

  constructor(target: SweepTarget, options: SweepOptions, nuids: Iterable<string>) {
    this.#target = target;
    this.#options = options;
    // Anything else is no chunk of an object, and no subject to purge by.
    this.#nuids = [...nuids].filter((nuid) => /^[^\s.*>]+$/.test(nuid));
  }

  /** False where something was left for the next time. */
  get isDone(): boolean {
    return this.#isDone;
  }

  begin(): { deliver(delivery: Delivery): void; broken(why: Error): void } {
    this.#unnamed = new Set(this.#nuids);
    this.#seen = new Set();
    this.#marks = [];
    this.#highestLevel0 = 0n;
    this.#sequence = 0;
    this.#unreadable = undefined;
    this.#failure = undefined;
    return {
      deliver: (delivery) => {
        this.#take(delivery);
        this.#wake();
      },
      broken: (why) => {
        this.#failure = why;
        this.#wake();
      },
    };
  }

  async purgeMarks(): Promise<number> {
    const { bucket, expectLease } = this.#target;
    const due = this.#marks.filter(({ txid }) => txid === undefined || txid < this.#highestLevel0);
    for (let i = 0; i < due.length; i += BATCH) {
      throwIfAborted(this.#options.signal, 'sweeping');
      await expectLease();
      const batch = due.slice(i, i + BATCH);
      for (let j = 0; j < batch.length; j += PURGES_AT_ONCE) {
        const some = batch.slice(j, j + PURGES_AT_ONCE);
        await Promise.all(some.map(({ subject, sequence }) => purgeUpTo(bucket, subject, sequence)));
      }
    }
    return due.length;
  }

  /** `obstacle`: why what may be left of uploads stays. */
  async purgeUploads(metas: OpenMetas): Promise<{ uploads: number; obstacle?: string }> {
    const { bucket, expectLease, nowMs } = this.#target;
    const oldMs = nowMs - (this.#options.uploadAgeMs ?? UPLOAD_AGE_MS);
    let uploads = 0;
    for (const nuid of this.#unnamed) {
      throwIfAborted(this.#options.signal, 'sweeping');
      if (isBeingPut(nuid)) continue;
      const newest = await this.#newestChunk(nuid);
      if (newest === undefined || newest.storedMs > oldMs) continue;
      if (uploads === MOST_UPLOADS) {
        this.#isDone = false;
        break;
      }
      await expectLease();
      const obstacle = await this.#obstacle(metas, uploads === 0);
      if (obstacle !== undefined) return { uploads, obstacle };
      if (!this.#unnamed.has(nuid)) continue;
      await purgeUpTo(bucket, chunkSubject(bucket, nuid), newest.sequence);
      uploads++;
    }
    return { uploads };
  }

  #take({ message, sequence, timestampMs }: Delivery): void {
    const { subject, data } = message;
    const { bucket, nowMs } = this.#target;
    this.#sequence = sequence;
    this.#seen.add(subject);
    const named = namedBy(data);
    if (named === undefined) {
      this.#unreadable ??= subject;
      return;
    }
    if (!named.deleted) this.#unnamed.delete(named.nuid);
    const object = decodeMeta(bucket, { subject, data, sequence, storedMs: timestampMs });
    const path = object && this.#pathOf(object.name);
    if (object === undefined || path === undefined) return;
    const ltx = parseLtxPath(path);
    if (!object.deleted) {
      if (ltx?.level === 0 && ltx.maxTxid > this.#highestLevel0) this.#highestLevel0 = ltx.maxTxid;
      return;
    }
    if (ltx === undefined && !isExtraPath(path)) return;
    if (timestampMs > nowMs - (this.#options.markAgeMs ?? MARK_AGE_MS)) return;
    if (this.#marks.length === MOST_MARKS) this.#isDone = false;
    else this.#marks.push({ subject, sequence, txid: ltx?.level === 0 ? ltx.maxTxid : undefined });
  }

  #pathOf(name: string): string | undefined {
    const { prefix } = this.#target;
    if (prefix === '') return name;
    return name.startsWith(`${prefix}/`) ? name.slice(prefix.length + 1) : undefined;
  }

  async #newestChunk(nuid: string): Promise<{ sequence: number; storedMs: number } | undefined> {
    const { bucket } = this.#target;
    try {
      const { seq, time } = await getMessage(bucket, { last_by_subj: chunkSubject(bucket, nuid) });
      return { sequence: seq, storedMs: time.getTime() };
    } catch (error) {
      if (apiCode(error) === Api.MESSAGE_NOT_FOUND) return undefined;
      throw requestError(error, 'look for leftovers', bucket.name, bucket.link.url);
    }
  }

  /** Why no nuid may be believed to be unnamed. */
  async #obstacle({ isWhole }: OpenMetas, isFirst: boolean): Promise<string | undefined> {
    const { bucket } = this.#target;
    const subjects = isFirst ? await subjectCounts(bucket, metaFilter(bucket)) : undefined;
    const newest = await newestMeta(bucket);
    const until = Date.now() + REACH_MS;
    while (this.#sequence < newest && this.#failure === undefined && Date.now() < until)
      await this.#next(until);
    if (this.#failure !== undefined) return `the metas do not come any more: ${this.#failure.message}`;
    if (this.#sequence < newest) return 'the newest metas do not come';
    if (this.#unreadable !== undefined) return `the meta ${this.#unreadable} is none that can be understood`;
    if (!isWhole) return 'the server cannot read all metas';
    for (const rest of subjects?.keys() ?? []) {
      const subject = metaFilter(bucket).slice(0, -1) + rest;
      if (!this.#seen.has(subject)) return `the server did not send the meta ${subject}`;
    }
    return undefined;
  }

  async #next(until: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, until - Date.now());
    });
    clearTimeout(timer);
  }
}

/** The nuid that a meta names, empty for a link, which has no chunks; undefined if that cannot be told. */
function namedBy(data: Uint8Array): { nuid: string; deleted: boolean } | undefined {
  try {
    const meta: unknown = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.length).toString());
    const { nuid, deleted, options } = meta as {
      nuid?: unknown;
      deleted?: unknown;
      options?: { link?: unknown };
    };
    const isLink = typeof options?.link === 'object' && options.link !== null;
    if (nuid === undefined || nuid === '') return isLink ? { nuid: '', deleted: true } : undefined;
    return typeof nuid === 'string' ? { nuid, deleted: deleted === true } : undefined;
  } catch {
    return undefined;
  }
}
