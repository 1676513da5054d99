/**
 * When to look at the files next: as soon as they move, but no oftener than it is worth.
 *
 * Frames that are written raise an event, but the header that makes them a commit does not: it comes some time after
 * them, with `synchronous=FULL` after the disk's sync. So after an event without a commit there are looks at it at doubling
 * intervals.
 */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import type { FileEvents } from './file-events.js';
import type { SourceFiles } from './files.js';

/** The first look after an event that brought no commit, and about the last one. */
const LOOK_AGAIN_FIRST_MS = 1;
const LOOK_AGAIN_LAST_MS = 1000;
/** How often to look at a writer so fast that its events are not listened to, and when it counts as pausing. */
const BUSY_POLL_MS = 2;
const PAUSE_MS = 100;
/** An image is not taken again before this many times what the last one took. */
const IMAGE_PAUSES = 5;

export class Pace {
  readonly #files: SourceFiles;
  readonly #events: FileEvents;
  /** When a commit was last seen, monotonic clock. */
  #committedAt = 0;
  /** How long to wait for an event. */
  #lookAgainMs = Number.POSITIVE_INFINITY;
  /** When the last image was complete, monotonic clock, and what it took. */
  #imagedAt = 0;
  #imageCostMs = 0;

  constructor(files: SourceFiles, events: FileEvents) {
    this.#files = files;
    this.#events = events;
  }

  /** Resolves when a file of the database has moved, or after `ms`. */
  async wait(ms: number, signal?: AbortSignal): Promise<void> {
    const events = this.#events;
    if (events.isFlooded) events.rest();
    if (!events.isResting) {
      const moved = await events.wait(Math.min(ms, this.#lookAgainMs), signal);
      if (moved) this.#lookAgainMs = LOOK_AGAIN_FIRST_MS;
      else if (this.#lookAgainMs < LOOK_AGAIN_LAST_MS) this.#lookAgainMs *= 2;
      else this.#lookAgainMs = Number.POSITIVE_INFINITY;
    } else if (performance.now() - this.#committedAt < PAUSE_MS) {
      await delay(Math.min(ms, BUSY_POLL_MS));
    } else {
      // The writer pauses. Returning makes the caller look once more, now that events arrive again.
      events.watchAgain(this.#files.path);
      this.#lookAgainMs = LOOK_AGAIN_FIRST_MS;
    }
  }

  /** A commit was seen. */
  committed(): void {
    this.#committedAt = performance.now();
    this.#lookAgainMs = Number.POSITIVE_INFINITY;
  }

  /** An image was taken that was begun at `startedMs`, monotonic clock. */
  imaged(startedMs: number): void {
    this.#imagedAt = performance.now();
    this.#imageCostMs = this.#imagedAt - startedMs;
  }

  /** A busy writer in rollback mode moves the file all the time: reading it must not take all of ours. */
  get isImageDue(): boolean {
    return performance.now() - this.#imagedAt >= IMAGE_PAUSES * this.#imageCostMs;
  }

  /** The next image is not put off, however long the last one took. */
  hurry(): void {
    this.#imageCostMs = 0;
  }
}
