/**
 * Wakes capture when something happens in the database's folder, and counts what happened to the `-shm` file.
 *
 * The count is evidence: writes through a mapping raise no event, but the first connection after all others are gone
 * truncates the file, and that does. Events reach us on a later turn of the event loop, so whoever relies on "no
 * event" lets the loop turn first (`eventTurn`).
 */

import fs from 'node:fs';
import path from 'node:path';

export class FileEvents {
  /** Events seen on `-shm`. */
  shmCount = 0;
  readonly #watcher: fs.FSWatcher | undefined;
  readonly #names: Set<string>;
  readonly #shmName: string;
  #wake: (() => void) | undefined;
  #woken = false;
  #failed = false;

  /** @param enabled false: no file events, only the caller's own clock */
  constructor(databasePath: string, enabled: boolean) {
    const base = path.basename(databasePath);
    this.#shmName = `${base}-shm`;
    this.#names = new Set([base, `${base}-wal`, this.#shmName, `${base}-journal`]);
    if (!enabled) return;
    try {
      this.#watcher = fs.watch(path.dirname(databasePath), { persistent: false }, (_type, name) =>
        this.#onEvent(name),
      );
      this.#watcher.on('error', () => {
        this.#failed = true;
      });
    } catch {
      // No watches left, or a file system without events: the safety poll does the work.
      this.#failed = true;
    }
  }

  /** Whether events arrive, as far as one can know. */
  get working(): boolean {
    return this.#watcher !== undefined && !this.#failed;
  }

  /** Resolves at the next event on one of the files (or one that came since the last call), or after `ms`. */
  async wait(ms: number, signal?: AbortSignal): Promise<void> {
    if (this.#woken || signal?.aborted) {
      this.#woken = false;
      return;
    }
    await new Promise<void>((resolve) => {
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
    this.#woken = false;
  }

  /** Ends a `wait` now. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  close(): void {
    this.#watcher?.close();
    this.#failed = true;
    this.wake();
  }

  #onEvent(name: string | null): void {
    if (name === null || name === this.#shmName) this.shmCount++;
    if (name === null || this.#names.has(name)) this.wake();
  }
}

/** Lets the event loop poll at least once, so that events that have happened are delivered. */
export async function eventTurn(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}
