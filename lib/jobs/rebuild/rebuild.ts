/**
 * From the LTX files of a replica to a database file: pages are applied straight to the file, in the order of the plan.
 *
 * 1. Nothing may look at the file before `rebuildDatabase` has returned: pages of an LTX file are unproven until its end,
 *    and increments are laid over the pages before them.
 * 2. After each LTX file the database is exactly the state of that file's last transaction, with its size; unless pages are
 *    left to later files that have them too (Superseded), which is done where it pays.
 * 3. A file that is gone when its turn comes was merged or retired meanwhile. The listing is read again and the plan made
 *    anew from the state reached. Pages of a file that was applied in part do no harm, for the new plan leads at least as
 *    far as the old one: whatever that file changed, the new files change too. Where nothing leads on, the file is emptied
 *    and filled from what there is now.
 * 4. A file that turns out damaged is gone around where other files lead to the same state. Nothing of it survives: the
 *    file is emptied and filled anew.
 * 5. Each file is held against the state before it (StateCheck), so that files of two databases do not pass for one.
 */

import type { FileHandle } from 'node:fs/promises';
import { FormatError, JetliteError, throwIfAborted } from '../../errors.js';
import { LtxDecoder } from '../../ltx/decoder.js';
import { formatTxid } from '../../ltx/header.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { orAborted } from '../../until-aborted.js';
import type { RestorePlan, RestoreWish } from '../plan.js';
import { capturedMs } from './captured.js';
import { Damage, type DamagedFile } from './damage.js';
import { PageWriter } from './page-writer.js';
import { type FileBytes, readAhead } from './read-ahead.js';
import { StateCheck } from './state-check.js';
import { Superseded } from './superseded.js';

/** Called as work goes on; `totalBytes` can change when a plan is made anew. */
export type OnProgress = (progress: { phase: string; bytes: number; totalBytes: number }) => void;

export interface RebuildOptions {
  readonly replica: Replica;
  readonly wish: RestoreWish;
  /** The first plan to follow, made for this wish. */
  readonly plan: RestorePlan;
  /** Empty, opened for reading and writing. Stays open. */
  readonly file: FileHandle;
  /** Write each page once, by the page indexes; by default where that pays. */
  readonly writeOnce?: boolean | undefined;
  /** Small files fetched at a time. */
  readonly parallelism?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Rebuilt {
  readonly txid: bigint;
  /** When this state was captured, milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly fileCount: number;
  readonly bytesRead: number;
  /** Pages written, each as often as it was. */
  readonly pagesApplied: number;
  /** Files that turned out damaged on the way; the state was reached without them. */
  readonly damaged: readonly DamagedFile[];
}

const DEFAULT_PARALLELISM = 8;
/** Plans that may come to nothing because files vanish; each listing is newer than the last. */
const MAX_PLANS = 10;

const WHAT = 'the restore';
const HINT = 'Restore an earlier state with --txid or --timestamp, or from another replica.';

/**
 * Rebuilds the wished state in `file`, whose length is then pageCount * pageSize; not yet durable. Throws FormatError,
 * which names the LTX file, for damage that no way leads around and for files that contradict each other; NOT_FOUND if
 * files vanish too often; ABORTED as soon as the signal fires, also while the replica is silent.
 */
export async function rebuildDatabase(options: RebuildOptions): Promise<Rebuilt> {
  const { replica, file, parallelism = DEFAULT_PARALLELISM, signal } = options;
  const begin = (): Target => new Target(file, signal, options.onProgress);
  const damage = new Damage(replica);
  let target = begin();
  let plan = options.plan;
  let superseded =
    (options.writeOnce ?? Superseded.pays(plan.files))
      ? await orAborted(Superseded.read(replica, plan.files), signal, WHAT)
      : undefined;
  for (let plans = 1; ; ) {
    let goesOn = false;
    try {
      const sources = readAhead(replica, plan.files, parallelism, signal, WHAT);
      await target.follow(plan, sources, superseded);
      return { ...(await target.end()), damaged: damage.files };
    } catch (error) {
      if ((await orAborted(damage.note(error, plan.files), signal, WHAT)) === undefined) {
        if (!isVanished(error) || plans++ === MAX_PLANS) throw error;
        goesOn = superseded === undefined;
      }
    }
    const files = await orAborted(replica.list(), signal, WHAT);
    const onwards = goesOn ? planOnwards(files, options, damage, target.txid) : undefined;
    superseded = undefined;
    if (onwards === undefined) {
      await file.truncate(0);
      target = begin();
    }
    plan = onwards ?? planAfresh(files, options, damage);
  }
}

function isVanished(error: unknown): boolean {
  return error instanceof JetliteError && error.code === 'NOT_FOUND';
}

/** From the state reached to at least where the first plan led. Undefined if nothing leads there any more. */
function planOnwards(
  files: readonly LtxFileInfo[],
  { wish, plan }: RebuildOptions,
  damage: Damage,
  have: bigint,
): RestorePlan | undefined {
  try {
    const onwards = damage.plan(files, wish, have);
    return onwards.txid >= plan.txid ? onwards : undefined;
  } catch (error) {
    if (!isVanished(error) && !(error instanceof FormatError)) throw error;
    return undefined;
  }
}

/** From nothing. Only a moment may lead to an older state than it did before. */
function planAfresh(
  files: readonly LtxFileInfo[],
  { wish, plan }: RebuildOptions,
  damage: Damage,
): RestorePlan {
  const afresh = damage.plan(files, wish);
  if (wish.kind === 'timestamp' || afresh.txid >= plan.txid) return afresh;
  throw new JetliteError(
    'NOT_FOUND',
    `the files that led to TXID ${formatTxid(plan.txid)} were removed while they were read`,
    { hint: 'Restore again: a new plan is made from what is there now.' },
  );
}

/** The same error, with what to do about it. */
function damaged(error: FormatError): FormatError {
  const message = error.message.slice(error.where.length + 2);
  const hint = error.hint === undefined ? HINT : `${error.hint} ${HINT}`;
  return new FormatError(error.where, message, { hint, cause: error });
}

/** The database file and what has become of it so far. */
class Target {
  /** The state the file is in, all of it; 0 at the beginning. */
  txid = 0n;
  readonly #file: FileHandle;
  readonly #signal: AbortSignal | undefined;
  readonly #onProgress: OnProgress | undefined;
  readonly #check = new StateCheck();
  #writer: PageWriter | undefined;
  #pageSize = 0;
  #pageCount = 0;
  #timestampMs = 0;
  #fileCount = 0;
  #bytesRead = 0;
  #pagesApplied = 0;
  /** Whether no byte of the file has been written. */
  #fresh = true;

  constructor(file: FileHandle, signal: AbortSignal | undefined, onProgress: OnProgress | undefined) {
    this.#file = file;
    this.#signal = signal;
    this.#onProgress = onProgress;
  }

  async follow(
    plan: RestorePlan,
    sources: AsyncIterable<FileBytes>,
    superseded: Superseded | undefined,
  ): Promise<void> {
    const totalBytes = this.#bytesRead + plan.bytes;
    let place = 0;
    try {
      for await (const { file, bytes } of sources) {
        const at = place++;
        const isSuperseded = superseded && ((pgno: number) => superseded.has(at, pgno));
        await this.#apply(file, bytes, totalBytes, isSuperseded);
        this.txid = file.maxTxid;
      }
    } catch (error) {
      await this.#writer?.abandon();
      throw error instanceof FormatError ? damaged(error) : error;
    }
  }

  async end(): Promise<Omit<Rebuilt, 'damaged'>> {
    // Pages of zeros at the end were left out, and a partly applied file may have reached beyond.
    await this.#file.truncate(this.#pageCount * this.#pageSize);
    return {
      txid: this.txid,
      timestampMs: this.#timestampMs,
      pageSize: this.#pageSize,
      pageCount: this.#pageCount,
      fileCount: this.#fileCount,
      bytesRead: this.#bytesRead,
      pagesApplied: this.#pagesApplied,
    };
  }

  async #apply(
    file: LtxFileInfo,
    source: FileBytes['bytes'],
    totalBytes: number,
    isSuperseded?: (pgno: number) => boolean,
  ): Promise<void> {
    const decoder = new LtxDecoder(ltxPath(file));
    const fresh = this.#fresh;
    for await (const chunk of source) {
      throwIfAborted(this.#signal, WHAT);
      this.#bytesRead += chunk.length;
      this.#onProgress?.({ phase: 'restore', bytes: this.#bytesRead, totalBytes });
      decoder.push(chunk);
      for (let event = decoder.next(); event !== 'more' && event !== 'end'; event = decoder.next()) {
        if (event === 'header') {
          this.#check.begin(file, decoder.header!);
          this.#begin(decoder.header!.pageSize);
        } else {
          this.#check.page(decoder.pgno, decoder.page);
          if (isSuperseded?.(decoder.pgno)) continue;
          this.#pagesApplied++;
          const wait = this.#writer!.write(decoder.pgno, decoder.page, fresh);
          if (wait !== undefined) await wait;
        }
      }
    }
    const { header } = decoder.end();
    this.#check.end();
    await this.#writer!.settle();
    // What is cut off here reads as zeros if a later file makes the database grow again.
    if (header.commit < this.#pageCount) await this.#file.truncate(header.commit * header.pageSize);
    this.#pageCount = header.commit;
    this.#timestampMs = capturedMs(file, header);
    this.#fileCount++;
  }

  #begin(pageSize: number): void {
    this.#pageSize = pageSize;
    this.#writer ??= new PageWriter(this.#file, pageSize);
    this.#fresh = false;
  }
}
