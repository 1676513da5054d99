/**
 * Whether the index header that was seen is to be believed.
 *
 * A sound header can be *stale*: after a kill of the application a process in exclusive locking mode keeps its index in
 * memory and never touches the file. And a half-changed one may stay so for good if whoever changed it is gone.
 *
 * Invariants:
 * 1. An index that somebody is seen to use is believed. One that cannot be in use is not: somebody holds the database for
 *    itself, and does not use it (locks.ts).
 * 2. Where no lock can be seen, what happens beside the header proves it stale, if it stays as it is meanwhile: two
 *    commits beyond its last frame, or a WAL that is written although, by the header, nobody can have.
 * 3. A single commit beyond the header proves nothing. Its writer may have died before publishing it, and then it is none
 *    as long as anybody else is connected. It is left alone, and said to be undecided.
 * 4. A header once found stale is not believed until it changes. A half-changed one is waited for, and is no header if
 *    it stays so.
 */

import { performance } from 'node:perf_hooks';
import type { WalIndexHeader } from '../sqlite/wal-index.js';
import { isSettled, type OpenFile, stampOf } from './files.js';
import { type ChainPosition, generationStart, lastCommit } from './frame-reader.js';
import { indexUse } from './locks.js';
import { viewWal, type WalView } from './wal-view.js';

/** The WAL and index to follow, and the database they belong to. */
export interface WalPair {
  readonly database: OpenFile;
  readonly wal: OpenFile;
  readonly shm: OpenFile | undefined;
}

/** A half-changed header that stays so for this long belongs to a writer that is gone; less, if nobody can be using it. */
const ABANDONED_MS = 2000;
const ABANDONED_UNUSED_MS = 20;
/** How often locks are looked at, and commits looked for beyond the header. */
const CHECK_MS = 500;

export class IndexTrust {
  /** A commit stands beyond a header that may govern: not taken, not refuted. */
  undecided = false;
  #changing: { readonly key: string; readonly sinceMs: number } | undefined;
  #unused = false;
  #locksSeenAt = Number.NEGATIVE_INFINITY;
  #stale: string | undefined;
  #checkedAt = Number.NEGATIVE_INFINITY;
  /** What WAL and index were like at the last check. */
  #checked: { readonly index: string; readonly wal: string; readonly settled: boolean } | undefined;

  /** What a view is worth: with its index, or without it. `fresh` makes it look at the locks first. */
  judge(view: WalView, pair: WalPair, fresh: boolean): WalView {
    this.#seeLocks(pair, fresh);
    if (view.kind === 'changing') {
      if (this.#changing?.key !== view.key) this.#changing = { key: view.key, sinceMs: performance.now() };
      const isOver = this.#unused || stampOf(pair.wal).links === 0n;
      const limit = isOver ? ABANDONED_UNUSED_MS : ABANDONED_MS;
      return performance.now() - this.#changing.sinceMs > limit ? view.otherwise : view;
    }
    this.#changing = undefined;
    if (!('index' in view) || view.index === undefined) return view;
    if (this.#stale !== undefined && this.#stale !== lifeOf(pair.shm!, view.index)) this.#stale = undefined;
    if (!this.#unused && this.#stale === undefined) return view;
    this.undecided = false;
    return view.kind === 'empty'
      ? { kind: 'empty', index: undefined }
      : { kind: 'ungoverned', wal: view.wal };
  }

  /** Takes a header for stale until it changes, unless somebody is seen to use it. Returns whether it does. */
  distrust(pair: WalPair, index: WalIndexHeader): boolean {
    if (useOf(pair) === 'used') return false;
    if (pair.shm !== undefined) this.#stale = lifeOf(pair.shm, index);
    return true;
  }

  /**
   * Whether a header that was followed to its last frame, `position`, has proven stale; it is not believed then. What is
   * behind the position is looked at now and then, and only if the WAL was written.
   */
  async looksStale(pair: WalPair, view: WalView, position: ChainPosition): Promise<boolean> {
    if (!('index' in view) || view.index === undefined) return false;
    const now = performance.now();
    if (now - this.#checkedAt < CHECK_MS) return false;
    const stamp = stampOf(pair.wal);
    const wal = `${stamp.mtimeNs} ${stamp.size}`;
    const index = `${view.kind} ${stamp.ino} ${lifeOf(pair.shm!, view.index)}`;
    const seen = { index, wal, settled: isSettled(stamp) };
    const before = this.#checked;
    const isSame = before?.index === seen.index && before.wal === seen.wal && before.settled;
    if (isSame && !this.undecided) return false;
    this.#checkedAt = now;
    this.undecided = false;
    if (useOf(pair) === 'used') {
      this.#checked = seen;
      return false;
    }
    let proven = false;
    if (view.kind === 'governed' || view.kind === 'begun') {
      const from = view.kind === 'governed' ? position : generationStart(view.wal);
      const { commits } = await lastCommit(pair.wal, from);
      proven = commits > 1;
      this.undecided = commits === 1;
    } else {
      // Nobody writes to a WAL that was emptied or restarted without putting the index right first.
      proven = before?.index === seen.index && before.wal !== seen.wal;
    }
    const again = viewWal(pair.wal, pair.shm);
    const stays = again.kind === view.kind && 'index' in again && again.index !== undefined;
    if (!stays || indexKey(again.index!) !== indexKey(view.index)) {
      this.undecided = false;
      return false;
    }
    this.#checked = seen;
    if (proven) this.#stale = lifeOf(pair.shm!, view.index);
    return proven;
  }

  #seeLocks(pair: WalPair, fresh: boolean): void {
    const now = performance.now();
    if (!fresh && now - this.#locksSeenAt < CHECK_MS) return;
    this.#locksSeenAt = now;
    this.#unused = useOf(pair) === 'unused';
  }
}

/** Undefined if there is no index. */
export function useOf({ database, wal, shm }: WalPair): ReturnType<typeof indexUse> | undefined {
  return shm && indexUse({ database, wal, shm });
}

/** Equal for the same header, unless the file was begun anew meanwhile: the first header of each life says the same. */
function lifeOf(shm: OpenFile, index: WalIndexHeader): string {
  const { dev, ino, ctimeNs } = stampOf(shm);
  return `${dev} ${ino} ${ctimeNs} ${indexKey(index)}`;
}

/** Equal for headers that say the same. */
export function indexKey(index: WalIndexHeader): string {
  const { changeCount, maxFrame, salt1, salt2, frameChecksum1, frameChecksum2 } = index;
  return `${changeCount} ${maxFrame} ${salt1} ${salt2} ${frameChecksum1} ${frameChecksum2}`;
}
