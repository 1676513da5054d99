/**
 * An acknowledgement is not a promise: beside the capture loop the replica is asked again whether it still has what it
 * acknowledged, and gets what it lost once more.
 *
 * 1. What was put or seen is remembered, in bounded memory: name, digest and version. The highest acknowledged TXID is kept
 *    on disk, so that a later process knows, too, that numbers were given (acknowledged.ts).
 * 2. Asked is at the start, each time the replica answers again after it was away or shows that it is another one by now,
 *    when a merge cannot read a file, and by the clock.
 * 3. A chain that leads to the newest state no more is looked at twice, the second time after a moment, before anything is
 *    done about it.
 * 4. What the spool still has is put again under its own name. Otherwise healing never gives a number twice: the whole
 *    database goes up under the next TXID, as a snapshot, too. Only when that is durable are damaged files removed, which
 *    would break merges and restores; the newest of level 0 stays.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { LONGEST_TIMER_MS } from '../../longest-timer.js';
import { formatTxid } from '../../ltx/header.js';
import { ltxPath } from '../../replica/names.js';
import type { FileFlaw, LtxFileInfo } from '../../replica/replica.js';
import { AcknowledgedMark } from './acknowledged.js';
import { hasCode, pause } from './attempts.js';
import { auditReplica, describeLoss, type Judgement } from './audit.js';
import type { Companion, SessionParts } from './companion.js';
import { conflictWith } from './other-writers.js';
import type { SpooledFile } from './spool.js';

const DEFAULT_INTERVAL_MS = 10 * 60_000;
/** Files that are remembered at most; beyond it those that were learned of first are forgotten. */
const REMEMBERED = 50_000;
const SECOND_LOOK_MS = 250;
const CALM_TRIES = 100;
const CALM_MS = 10;
/** Of a file that is put again from the spool, bytes: it is held in memory meanwhile. */
const LARGEST_REFILL = 16 * 1024 * 1024;
/** A whole image may fail to become durable while the server goes on losing: not for ever at full speed. */
const HEAL_AGAIN_MS = 5000;

/** Starts the audits of one database's replica; none for a home that cannot tell, or a job that ends at once. */
export function startAuditor(session: SessionParts): Companion {
  return new Auditor(session);
}

class Auditor implements Companion {
  readonly #session: SessionParts;
  readonly #mark: AcknowledgedMark;
  readonly #remembered = new Map<string, LtxFileInfo>();
  /** When all of them were there, or later for some. */
  #seenMs = Date.now();
  /** Told already, and not healed: the same loss is told once. */
  #told = new Set<string>();
  readonly #stopping = new AbortController();
  readonly #forget: (() => void)[] = [];
  readonly #running: Promise<void>;
  #isDue = true;
  /** The loss was told at the start of the job, and the whole database was put since. */
  #isBegunAnew: boolean;
  #wake: () => void = () => {};

  constructor(session: SessionParts) {
    const { state, uploader, replica, options } = session;
    this.#session = session;
    this.#isBegunAnew = session.isBegunAnew;
    this.#mark = new AcknowledgedMark(state.folder);
    this.#mark.set(uploader.txid);
    this.#forget.push(
      uploader.onDurable(({ file }) => {
        this.#mark.set(file.maxTxid);
        this.#remember(file);
      }),
    );
    const audits = replica.audit !== undefined && options.once !== true;
    if (audits) this.#forget.push(session.damaged.onFound(() => this.#due()));
    if (audits && replica.onReturn !== undefined) this.#forget.push(replica.onReturn(() => this.#due()));
    this.#running = audits ? this.#run() : Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake();
    for (const forget of this.#forget) forget();
    await this.#running;
    await this.#mark.close();
  }

  #due(): void {
    this.#isDue = true;
    this.#wake();
  }

  async #run(): Promise<void> {
    const { auditIntervalMs = DEFAULT_INTERVAL_MS } = this.#session.options;
    if (this.#isBegunAnew) await this.#whenWhole();
    while (!this.#stopping.signal.aborted) {
      if (!this.#isDue) await this.#sleep(auditIntervalMs);
      if (this.#stopping.signal.aborted) return;
      this.#isDue = false;
      try {
        await this.#audit();
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        // Out of reach: the next look is when it answers again.
        if (!hasCode(error, 'REPLICA', 'ABORTED', 'NOT_FOUND')) this.#session.fail(error);
      }
    }
  }

  /** Until the next look is due, by the clock or otherwise. */
  async #sleep(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, Math.min(ms, LONGEST_TIMER_MS));
    });
    clearTimeout(timer);
  }

  async #audit(): Promise<void> {
    const lookedMs = Date.now();
    let found = await this.#look();
    if (found?.broken !== undefined) {
      await delay(SECOND_LOOK_MS);
      found = await this.#look();
    }
    if (found === undefined) return;
    await this.#refuseForeign(found);
    const { lost, broken } = found;
    const isAnew = this.#isBegunAnew;
    this.#isBegunAnew = false;
    const news = lost.filter(({ file }) => !this.#told.has(ltxPath(file)));
    if (news.length > 0 || broken !== undefined) {
      this.#tell(news, broken);
      found = (await this.#refill(lost)) ?? found;
      if (found.broken !== undefined) found = await this.#putWhole(found.broken);
      if (found === undefined) return;
      await this.#removeDamaged(found);
    }
    if (news.length > 0 || broken !== undefined || isAnew) {
      this.#tellHealed(found, broken !== undefined || isAnew);
    }
    this.#forgetHealed(found.lost);
    this.#remembered.clear();
    this.#seenMs = lookedMs;
    for (const file of found.sound) this.#remember(file);
  }

  #look(): Promise<Judgement | undefined> {
    const { replica, uploader, damaged } = this.#session;
    return auditReplica(replica, [...this.#remembered.values()], uploader.txid, this.#seenMs, damaged);
  }

  /** Files of level 0 that this job neither put nor found at its start. */
  async #refuseForeign({ sound, foreign }: Judgement): Promise<void> {
    const { uploader } = this.#session;
    const above = sound.find(({ level, maxTxid }) => level === 0 && maxTxid > uploader.sealedTxid);
    const file = foreign[0]?.file ?? above;
    if (file !== undefined) throw await conflictWith(this.#session, file);
  }

  /**
   * Puts again what the spool still has of the lost files, under their own names: each moment can be restored then as
   * before. Undefined if that was nothing.
   */
  async #refill(lost: readonly FileFlaw[]): Promise<Judgement | undefined> {
    const { replica, spool, emit } = this.#session;
    let count = 0;
    for (const { file, kind } of lost) {
      if (file.level !== 0 || (kind !== 'missing' && kind !== 'damaged')) continue;
      if (!(await this.#isCalm())) break;
      const content = await bytesOf(await spool.read(file.maxTxid));
      if (content === undefined) continue;
      const { level, minTxid, maxTxid, timestampMs, version } = file;
      const heals = kind === 'missing' ? 'nothing' : version;
      if (heals === undefined) continue;
      try {
        await replica.write({ level, minTxid, maxTxid, timestampMs, heals }, () => content);
        count++;
      } catch (error) {
        // Its name was given, or taken away, meanwhile.
        if (!hasCode(error, 'CONFLICT')) throw error;
      }
    }
    if (count === 0) return undefined;
    emit({ type: 'state', level: 'info', message: `${count} of the lost files were put again` });
    return this.#look();
  }

  /** Nothing is being put, so that nobody else reads from the spool: that would take a file from under our hands. */
  async #isCalm(): Promise<boolean> {
    const { uploader } = this.#session;
    for (let tries = 0; tries < CALM_TRIES && !this.#stopping.signal.aborted; tries++) {
      await uploader.idle();
      if (uploader.txid === uploader.sealedTxid) return true;
      await delay(CALM_MS);
    }
    return false;
  }

  /** The whole database goes up until it is there; undefined if the job ends before. */
  async #putWhole(why: string): Promise<Judgement | undefined> {
    const { capture } = this.#session;
    for (;;) {
      capture.takeWhole(`the replica has lost files: ${why}`);
      await this.#whenWhole();
      if (this.#stopping.signal.aborted) return undefined;
      const found = await this.#look();
      if (found?.broken === undefined) return found;
      await pause(HEAL_AGAIN_MS, this.#stopping.signal);
    }
  }

  /** Resolves when a file with the whole database is durable, or the job ends. */
  async #whenWhole(): Promise<void> {
    const { uploader } = this.#session;
    const { signal } = this.#stopping;
    const before = uploader.sealedTxid;
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
      this.#forget.push(
        uploader.onDurable(({ file, whole }) => {
          // What came by the disk does not say whether it is whole.
          const isAll = file.maxTxid > before && file.maxTxid === uploader.sealedTxid;
          if (whole || isAll) resolve();
        }),
      );
    });
    this.#forget.pop()?.();
  }

  async #removeDamaged({ sound }: Judgement): Promise<void> {
    const { replica, uploader } = this.#session;
    const found = await this.#look();
    const damaged = found?.lost.filter(({ kind }) => kind === 'damaged').map(({ file }) => file) ?? [];
    const newest = sound.reduce(
      (high, { level, maxTxid }) => (level === 0 && maxTxid > high ? maxTxid : high),
      0n,
    );
    const removable = damaged.filter(({ level, maxTxid }) => level > 0 || maxTxid < newest);
    try {
      if (removable.length > 0 && uploader.failure === undefined) await replica.remove(removable);
    } catch (error) {
      // Somebody has put it anew meanwhile.
      if (!hasCode(error, 'CONFLICT')) throw error;
    }
  }

  #tell(news: readonly FileFlaw[], broken: string | undefined): void {
    for (const { file } of news) this.#told.add(ltxPath(file));
    const { replica, emit } = this.#session;
    const files = news.map(({ file }) => ltxPath(file));
    emit({ type: 'lost', level: 'error', message: `${replica.url} ${describeLoss(news, broken)}`, files });
  }

  /** What is whole again may be lost again. */
  #forgetHealed(lost: readonly FileFlaw[]): void {
    const still = new Set(lost.map(({ file }) => ltxPath(file)));
    for (const path of this.#told) if (!still.has(path)) this.#told.delete(path);
  }

  #tellHealed({ newest }: Judgement, wasBroken: boolean): void {
    const { replica, emit } = this.#session;
    const txid = formatTxid(newest);
    const message = wasBroken
      ? `${replica.url} leads to the newest state again, TXID ${txid}`
      : `${replica.url} leads to the newest state, TXID ${txid}, without what it has lost`;
    emit({ type: 'healed', level: 'warn', message });
  }

  #remember(file: LtxFileInfo): void {
    this.#remembered.set(ltxPath(file), file);
    if (this.#remembered.size <= REMEMBERED) return;
    for (const oldest of this.#remembered.keys()) {
      this.#remembered.delete(oldest);
      return;
    }
  }
}

/** The file's bytes; undefined if there is none, or it cannot be read. */
async function bytesOf(file: SpooledFile | undefined): Promise<Uint8Array[] | undefined> {
  if (file === undefined || file.size > LARGEST_REFILL) return undefined;
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const bytes of file.content()) {
      parts.push(bytes.slice());
      size += bytes.length;
    }
  } catch {
    return undefined;
  }
  return size === file.size ? parts : undefined;
}
