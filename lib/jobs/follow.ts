/**
 * Following: a restored database that goes on taking in what its replica gets, while others read it.
 *
 * 1. The database is restored whole, once; a copy that stands there from an earlier run is gone on with.
 * 2. The replica's own pushes wake the follower; a listing now and then covers a push that did not arrive.
 * 3. Each batch leads to the newest state that is known. When batches come fast they gather: each costs the readers a
 *    rebuilt index.
 * 4. Whatever the replica does (gone, damaged, a hole, its newest files lost), and where the disk is full, the copy stays at
 *    its last whole state and can be read; it never goes back.
 */

import { chmod } from 'node:fs/promises';
import { resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { claim } from '../claim.js';
import { awaitGuardsEnd } from '../copy/guard-claim.js';
import { LiveCopy } from '../copy/live-copy.js';
import { JetliteError } from '../errors.js';
import { formatTxid } from '../ltx/header.js';
import { versionKey } from '../replica/names.js';
import type { LtxFileInfo } from '../replica/replica.js';
import { orAborted } from '../until-aborted.js';
import { applyPlan } from './following/apply-plan.js';
import { BoundedWal } from './following/bounded-wal.js';
import { behind, expectSameDatabase, standingOf } from './following/history.js';
import type { FollowEvent, FollowOptions, FollowResult } from './following/options.js';
import { planRestore, type RestorePlan } from './plan.js';
import { Damage, type DamagedFile } from './rebuild/damage.js';
import { lookAtOutput, outputError } from './rebuild/output.js';
import { type RestoreResult, restore } from './restore.js';
import { Attempts, hasCode, isAway, pause } from './session/attempts.js';
import { stateFolder } from './state-folder.js';

export type { FollowEvent, FollowOptions, FollowResult } from './following/options.js';

const DEFAULT_PARALLELISM = 8;
const DEFAULT_LIST_MS = 30_000;
/** Batches that come faster than this gather. */
const GATHER_MS = 20;
const CHECK_FIRST_MS = 1;
const CHECK_LAST_MS = 100;
const CHECK_SETTLED_MS = 1000;
const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 2000;
/** A listing made while files appear may show a hole once. */
const TELL_AFTER = 2;
/** What the file system says where there is no room for a batch: somebody may make some. */
const FULL: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);

/**
 * Restores a database and keeps it up to date until the signal fires. Throws JetliteError as `restore` does while there is no
 * copy yet, but waits for a replica that is away; later CONFLICT (another program writes the copy, or the replica was begun anew or is another one) and OUTPUT.
 */
export async function follow(options: FollowOptions): Promise<FollowResult> {
  const { path } = await lookAtOutput(options.output);
  const release = await claim(
    path,
    () =>
      new JetliteError('OUTPUT', `another process follows at ${path} already`, {
        hint: 'One copy has one follower: end the other, or choose another output path.',
      }),
  );
  try {
    const { signal, onEvent } = options;
    const message = `waits for the SQLite process that guarded ${path} for an earlier follower and has not ended yet`;
    const tell = () => onEvent?.({ type: 'waiting', level: 'warn', message, txid: 0n });
    await awaitGuardsEnd(path, tell, signal);
    return await followAt(path, options);
  } finally {
    await release();
  }
}

async function followAt(path: string, options: FollowOptions): Promise<FollowResult> {
  const statePath = resolve(stateFolder(path), 'live-copy');
  let restored: RestoreResult | undefined;
  let copy = openCopy(path, statePath, options);
  if (copy === undefined) {
    restored = await restoreFirst(path, statePath, options);
    copy = openCopy(path, statePath, options);
  }
  if (copy === undefined) {
    throw new JetliteError('OUTPUT', `another file has taken the place of the copy ${path}`, {
      hint: 'Choose another output path.',
    });
  }
  const follower = new Follower(copy, options);
  if (restored?.kind === 'restored') follower.tellOf(restored.damaged);
  try {
    if (options.mode !== undefined) await chmod(path, options.mode);
    await follower.run();
  } catch (error) {
    throw outputError(error, path);
  } finally {
    await follower.stop();
    copy.close();
  }
  const { txid, timestampMs } = copy;
  return {
    output: path,
    txid,
    timestampMs,
    restored: restored !== undefined,
    batches: follower.batches,
    pages: follower.pages,
  };
}

/** The copy's first state. A replica that goes away meanwhile is waited for: who follows it would do so later, too. */
async function restoreFirst(path: string, statePath: string, options: FollowOptions): Promise<RestoreResult> {
  const { signal, onEvent, replica } = options;
  const attempts = new Attempts({
    signal,
    onRetry: ({ message }) =>
      onEvent?.({ type: 'waiting', level: 'warn', message: `${message}; trying again`, txid: 0n }),
  });
  const first = (): Promise<RestoreResult> =>
    restore({
      ...pick(options),
      output: path,
      prepare: (file, { pageSize, txid, timestampMs, pageCount }) => {
        const origin = { replica: replica.url, pageSize, txid, timestampMs, pageCount };
        LiveCopy.prepare(path, file.fd, statePath, origin);
      },
    });
  try {
    return await attempts.run(first, isAway);
  } finally {
    attempts.close();
  }
}

/** With `force` a copy that cannot be gone on with counts as none. */
function openCopy(path: string, statePath: string, { replica, force }: FollowOptions): LiveCopy | undefined {
  try {
    return LiveCopy.open(path, statePath, replica.url);
  } catch (error) {
    if (force && hasCode(error, 'CONFLICT', 'OUTPUT')) return undefined;
    throw outputError(error, path);
  }
}

function pick({ replica, force, mode, parallelism, integrityCheck, signal, onProgress }: FollowOptions) {
  return { replica, force, mode, parallelism, integrityCheck, signal, onProgress };
}

class Follower {
  batches = 0;
  pages = 0;
  readonly #copy: LiveCopy;
  readonly #options: FollowOptions;
  readonly #wal: BoundedWal;
  readonly #ending = new AbortController();
  readonly #watching: Promise<void>;
  /** Files that the replica told of and that are not in the copy. */
  #heard: LtxFileInfo[] = [];
  #mustList = true;
  #wake = () => {};
  #appliedAt = Number.NEGATIVE_INFINITY;
  #listedAt = Number.NEGATIVE_INFINITY;
  #checkMs = CHECK_FIRST_MS;
  #failures = 0;
  #told: string | undefined;
  /** Whether it was said that the whole database is to go in again. */
  #isMending = false;
  /** The newest file of the last listing that was found to be of the copy's own database. */
  #known: string | undefined;
  readonly #forget: (() => void) | undefined;

  constructor(copy: LiveCopy, options: FollowOptions) {
    this.#copy = copy;
    this.#options = options;
    this.#wal = new BoundedWal(copy, options, this.#ending.signal, ({ type, level, message }) =>
      this.#emit(type, level, message),
    );
    const end = () => {
      this.#ending.abort();
      this.#wake();
    };
    options.signal?.addEventListener('abort', end, { once: true });
    if (options.signal?.aborted) end();
    // It may have lost something meanwhile.
    this.#forget = options.replica.onReturn?.(() => {
      this.#mustList = true;
      this.#wake();
    });
    this.#watching = this.#watch();
  }

  async run(): Promise<void> {
    const { replica, output, listIntervalMs = DEFAULT_LIST_MS } = this.#options;
    this.#wal.begin();
    const where = `TXID ${formatTxid(this.#copy.txid)}`;
    this.#emit('following', 'info', `${output} follows ${replica.url} from ${where} on`);
    while (!this.#ending.signal.aborted) {
      let wait = this.#nextCheck();
      try {
        this.#copy.check();
        const isNews = this.#copy.mustMend || this.#mustList || this.#heard.length > 0;
        if (isNews) await this.#catchUp();
        if (performance.now() - this.#listedAt > listIntervalMs) this.#mustList = true;
        await this.#wal.tend();
        this.#succeeded();
        wait = Math.min(wait, this.#nextCheck());
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        wait = this.#failed(error);
      }
      await this.#rest(wait);
    }
  }

  /** Ends what runs beside: nothing of it is left. */
  async stop(): Promise<void> {
    this.#ending.abort();
    this.#wake();
    this.#forget?.();
    await this.#wal.stop();
    await Promise.race([this.#watching, pause(1000, undefined)]);
  }

  async #watch(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        for await (const file of this.#options.replica.watch(signal)) {
          this.#heard.push(file);
          this.#wake();
        }
      } catch {
        // Listing says what is the matter.
      }
      if (signal.aborted) return;
      this.#mustList = true;
      this.#wake();
      await pause(RETRY_FIRST_MS, signal);
    }
  }

  async #catchUp(): Promise<void> {
    const copy = this.#copy;
    const { replica, parallelism = DEFAULT_PARALLELISM } = this.#options;
    const { signal } = this.#ending;
    const gatherMs = this.#appliedAt + GATHER_MS - performance.now();
    if (gatherMs > 0) await pause(gatherMs, signal);
    copy.check();
    if (copy.mustMend && !this.#isMending) {
      this.#isMending = true;
      const why = 'is not as it was left: a reader has removed or cut it, or another program has written';
      const message = `the WAL of ${copy.path} ${why}; the whole database goes in again`;
      this.#emit('mending', 'warn', message);
    }
    const damage = new Damage(replica);
    for (;;) {
      const plan = await this.#plan(damage);
      if (plan.files.length === 0) return;
      await this.#wal.makeRoom();
      try {
        const applied = await applyPlan(copy, plan, replica, parallelism, signal);
        this.#applied(applied.pages);
        this.tellOf(damage.files);
        return;
      } catch (error) {
        if ((await damage.note(error, plan.files)) === undefined) throw error;
        this.#mustList = true;
      }
    }
  }

  /** Says which files were damaged and gone around. */
  tellOf(damaged: readonly DamagedFile[]): void {
    for (const { message } of damaged) this.#emit('damaged', 'warn', message);
  }

  #applied(pages: number): void {
    const { path, txid } = this.#copy;
    this.#isMending = false;
    this.batches++;
    this.pages += pages;
    this.#appliedAt = performance.now();
    this.#checkMs = CHECK_FIRST_MS;
    this.#emit('applied', 'debug', `${path} stands at TXID ${formatTxid(txid)}: ${pages} pages`);
  }

  async #plan(damage: Damage): Promise<RestorePlan> {
    const copy = this.#copy;
    const heard = this.#heard.filter((file) => file.maxTxid > copy.txid);
    // A name of the past that is written now: history may have begun anew.
    const isOld = this.#heard.some((file) => file.level === 0 && file.maxTxid <= copy.txid);
    if (!copy.mustMend && !this.#mustList && !isOld) {
      try {
        const plan = planRestore(heard, { kind: 'newest' }, copy.txid);
        this.#heard = [];
        return plan;
      } catch (error) {
        if (!hasCode(error, 'NOT_FOUND')) throw error;
      }
    }
    const files = await this.#list();
    const standing = standingOf(files, copy);
    if (standing !== 'continues') await this.#expectSameDatabase(files);
    if (standing === 'behind') throw behind(this.#options.replica, copy);
    // Who removed the WAL may have written, too: no page of the database file is believed.
    const isWhole = copy.mustMend || standing === 'whole';
    return damage.plan(files, { kind: 'newest' }, isWhole ? 0n : copy.txid);
  }

  async #list(): Promise<LtxFileInfo[]> {
    this.#heard = [];
    this.#mustList = true;
    const files = await orAborted(this.#options.replica.list(), this.#ending.signal, 'following');
    this.#mustList = false;
    this.#listedAt = performance.now();
    if (files.length === 0) throw new JetliteError('NOT_FOUND', 'the replica holds no files any more');
    return files;
  }

  /** Looks once at each newest state, not at every try. */
  async #expectSameDatabase(files: readonly LtxFileInfo[]): Promise<void> {
    const newest = files.reduce((highest, file) => (file.maxTxid > highest.maxTxid ? file : highest));
    if (versionKey(newest) === this.#known) return;
    await expectSameDatabase(this.#options.replica, files, this.#copy);
    this.#known = versionKey(newest);
  }

  #nextCheck(): number {
    if (this.#copy.isSettled) return CHECK_SETTLED_MS;
    const ms = this.#checkMs;
    this.#checkMs = Math.min(2 * ms, CHECK_LAST_MS);
    return ms;
  }

  /** Waits for news, but never shorter after a failure than told: what cannot be followed would be tried all the time. */
  async #rest(ms: number): Promise<void> {
    if (this.#failures > 0) return pause(ms, this.#ending.signal);
    if (this.#heard.length > 0 || this.#mustList || this.#copy.mustMend) return;
    await new Promise<void>((done) => {
      const timer = setTimeout(done, ms);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
      if (this.#ending.signal.aborted) this.#wake();
    });
    this.#wake = () => {};
  }

  #succeeded(): void {
    this.#failures = 0;
    if (this.#told === undefined) return;
    this.#told = undefined;
    const { path, txid } = this.#copy;
    this.#emit('back', 'info', `${path} follows again and stands at TXID ${formatTxid(txid)}`);
  }

  /** How long to wait. Throws what waiting does not help against. */
  #failed(error: unknown): number {
    const isFull = FULL.has((error as NodeJS.ErrnoException).code ?? '');
    if (!isFull && !hasCode(error, 'REPLICA', 'NOT_FOUND', 'FORMAT')) throw error;
    const { message } = (isFull ? outputError(error, this.#copy.path) : error) as JetliteError;
    this.#mustList = true;
    this.#failures++;
    const isTold = this.#failures >= TELL_AFTER || !hasCode(error, 'NOT_FOUND');
    if (isTold && message !== this.#told) {
      this.#told = message;
      const { path, txid } = this.#copy;
      this.#emit(
        'waiting',
        'warn',
        `${message}; ${path} stays at TXID ${formatTxid(txid)} until it can go on`,
      );
    }
    return Math.min(RETRY_FIRST_MS * 2 ** (this.#failures - 1), RETRY_LAST_MS);
  }

  #emit(type: FollowEvent['type'], level: FollowEvent['level'], message: string): void {
    this.#options.onEvent?.({ type, level, message, txid: this.#copy.txid });
  }
}
