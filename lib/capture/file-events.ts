/**
 * Wakes capture when something happens in the database's folder, and counts what happened to each of its files.
 *
 * The counts are evidence. Writes to `-shm` through a mapping raise no event, but the first connection after all others
 * are gone truncates the file, and that does. Every write to the database or a journal raises one, and so does the
 * birth and the death of a `-wal`.
 *
 * Events come in the order in which things happened, but reach us on a later turn of the event loop: whoever relies on
 * "no event" lets the loop turn first (`eventTurn`). The kernel's queue is bounded, so counts from before a long pause
 * of the loop prove nothing (`trustedSince`).
 */

import fs from 'node:fs';
import path from 'node:path';
import { performance } from 'node:perf_hooks';

/** How many events were seen so far, by file. */
export interface EventTally {
  readonly database: number;
  readonly journal: number;
  /** Births, deaths and renames of `-wal`. */
  readonly walNames: number;
}

/** A pause of the loop that is longer than this may have overflowed the kernel's queue. */
const LONGEST_PAUSE_MS = 5000;
const HEARTBEAT_MS = 1000;
/** More events than that in a second, and each costs the writer more than it is worth to us. */
const FLOOD_EVENTS_A_SECOND = 2000;
const FLOOD_WINDOW_MS = 250;

export class FileEvents {
  /** Events seen on `-shm`. */
  shmCount = 0;
  /** Monotonic clock, ms: counts from before it prove nothing. */
  trustedSince = performance.now();
  #tally: EventTally = { database: 0, journal: 0, walNames: 0 };
  /** The tallies right after the last few changes of the name `-wal`, by their number. */
  readonly #atWalName = new Map<number, EventTally>();
  #beat = performance.now();
  readonly #heartbeat: NodeJS.Timeout | undefined;
  readonly #enabled: boolean;
  #watcher: fs.FSWatcher | undefined;
  #watched: { readonly databasePath: string; readonly dev: bigint; readonly ino: bigint } | undefined;
  #base = '';
  #walName = '';
  #shmName = '';
  #journalName = '';
  #wake: (() => void) | undefined;
  #woken = false;
  /** An event on one of the files came since the last `wait`. */
  #moved = false;
  #failed = false;
  #isResting = false;
  #windowStart = performance.now();
  #windowEvents = 0;
  #isFlooded = false;

  /** @param enabled false: no file events, only the caller's own clock */
  constructor(databasePath: string, enabled: boolean) {
    this.#enabled = enabled;
    if (enabled) this.#heartbeat = setInterval(() => this.#onHeartbeat(), HEARTBEAT_MS).unref();
    this.follow(databasePath);
  }

  /**
   * Sees to it that the folder at the path is the one that is watched: whoever removes a folder and makes it anew leaves
   * a watch behind that stays silent.
   */
  follow(databasePath: string): void {
    if (!this.#enabled || this.#isResting) return;
    const folder = path.dirname(databasePath);
    const stat = fs.statSync(folder, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return;
    const { dev, ino } = stat;
    const watched = this.#watched;
    if (watched?.databasePath === databasePath && watched.dev === dev && watched.ino === ino) return;
    this.#watched = { databasePath, dev, ino };
    this.#base = path.basename(databasePath);
    this.#walName = `${this.#base}-wal`;
    this.#shmName = `${this.#base}-shm`;
    this.#journalName = `${this.#base}-journal`;
    this.#watch(folder);
    this.trustedSince = performance.now();
  }

  /**
   * Whether a writer is at work so fast that each of its writes wakes us: it pays for that. Better to stop watching
   * (`rest`) and look by the clock, until it pauses (`watchAgain`). What happens meanwhile leaves no evidence here.
   */
  get isFlooded(): boolean {
    return this.#isFlooded;
  }

  get isResting(): boolean {
    return this.#isResting;
  }

  rest(): void {
    this.#isResting = true;
    this.#isFlooded = false;
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#watched = undefined;
  }

  /** Look once more afterwards: what happened before raises no event. */
  watchAgain(databasePath: string): void {
    this.#isResting = false;
    this.follow(databasePath);
  }

  #watch(folder: string): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#failed = false;
    try {
      const watcher = fs.watch(folder, { persistent: false }, (type, name) => this.#onEvent(type, name));
      watcher.on('error', () => {
        this.#failed = true;
      });
      this.#watcher = watcher;
    } catch {
      // No watches left, or a file system without events: the safety poll does the work.
      this.#failed = true;
    }
  }

  /** Whether events arrive, as far as one can know. */
  get working(): boolean {
    return this.#watcher !== undefined && !this.#failed;
  }

  get tally(): EventTally {
    return this.#tally;
  }

  /** The tally right after the `walNames`-th change of the name `-wal`; undefined if that is long ago or yet to come. */
  tallyAtWalName(walNames: number): EventTally | undefined {
    return this.#atWalName.get(walNames);
  }

  /**
   * Resolves at the next event on one of the files (or one that came since the last call), or after `ms`; true if there
   * was one.
   */
  async wait(ms: number, signal?: AbortSignal): Promise<boolean> {
    if (!this.#woken && !signal?.aborted) await this.#next(ms, signal);
    const moved = this.#moved;
    this.#woken = false;
    this.#moved = false;
    return moved;
  }

  #next(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', done, { once: true });
      this.#wake = done;
    });
  }

  /** Ends a `wait` now. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  close(): void {
    clearInterval(this.#heartbeat);
    this.#watcher?.close();
    this.#failed = true;
    this.wake();
  }

  #onEvent(type: string, name: string | null): void {
    this.#onHeartbeat();
    this.#windowEvents++;
    const all = name === null;
    if (all || name === this.#shmName) this.shmCount++;
    const { database, journal, walNames } = this.#tally;
    const walNamed = all || (name === this.#walName && type === 'rename');
    this.#tally = {
      database: database + (all || name === this.#base ? 1 : 0),
      journal: journal + (all || name === this.#journalName ? 1 : 0),
      walNames: walNames + (walNamed ? 1 : 0),
    };
    if (walNamed) {
      this.#atWalName.set(this.#tally.walNames, this.#tally);
      this.#atWalName.delete(this.#tally.walNames - 8);
    }
    if (!all && !name.startsWith(this.#base)) return;
    this.#moved = true;
    this.wake();
  }

  #onHeartbeat(): void {
    const now = performance.now();
    if (now - this.#beat > LONGEST_PAUSE_MS) this.trustedSince = now;
    this.#beat = now;
    const window = now - this.#windowStart;
    if (window < FLOOD_WINDOW_MS) return;
    this.#isFlooded = (this.#windowEvents * 1000) / window > FLOOD_EVENTS_A_SECOND;
    this.#windowStart = now;
    this.#windowEvents = 0;
  }
}

/** Lets the event loop poll at least once, so that events that have happened are delivered. */
export async function eventTurn(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}
