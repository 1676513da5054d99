/**
 * Proof across the times when a database has no `-wal`: from the death of one, when the last connection closes, to the
 * birth of the next.
 *
 * Invariants:
 * 1. Whoever closes last brings everything in the WAL into the database file, then takes the names of `-shm` and `-wal`
 *    away. So a WAL that was followed to its end, and has lost its name, is the database file. Its end is known if the
 *    index that was followed lost its name with it, or if there was none and everything was in one process's memory. That
 *    it was brought into the database file, and not just removed, is what the index says; without one, the times.
 * 2. After that nothing is committed without a write to the database file, but for what stands in a `-wal` born since.
 *    A write moves the file's times, if these were old enough to move visibly, and raises an event. Either proof
 *    suffices: times from before the WAL's death that have not moved, or not one event behind the event of that death.
 * 3. The first `-wal` born after that holds every commit since, from its first frame on, as long as no checkpoint has
 *    written the database: that too moves times and raises events.
 */

import { performance } from 'node:perf_hooks';
import type { WalIndexHeader } from '../sqlite/wal-index.js';
import { type EventTally, eventTurn, type FileEvents } from './file-events.js';
import {
  type FileStamp,
  isSameFile,
  isSettled,
  type OpenFile,
  type SourceFiles,
  stampOf,
  stampsEqual,
  statPath,
} from './files.js';
import { sightJournal } from './hot-journal.js';

/** What shows that a database without `-wal` is still the one whose state is known. */
export interface QuietState {
  readonly stamp: FileStamp;
  /** Whether the stamp's times were old enough when taken to show any later change. */
  readonly settled: boolean;
  /** Identity of the journal whose records were undone, if any. */
  readonly journal: string | undefined;
  /** Events up to the moment the state is known for; only within one process. */
  readonly events?: { readonly tally: EventTally; readonly sinceMs: number };
}

export class WalLifetimes {
  readonly #files: SourceFiles;
  readonly #events: FileEvents;
  #followed: { readonly wal: OpenFile; readonly walNames: number; readonly sinceMs: number } | undefined;

  constructor(files: SourceFiles, events: FileEvents) {
    this.#files = files;
    this.#events = events;
  }

  /** Call while a WAL is followed, before its death can have been seen: its birth's events must have been delivered. */
  async follow(wal: OpenFile): Promise<void> {
    if (this.#followed !== undefined && isSameFile(this.#followed.wal, wal)) return;
    const sinceMs = performance.now();
    await eventTurn();
    const { walNames } = this.#events.tally;
    const now = statPath(this.#files.walPath);
    this.#followed = now !== undefined && isSameFile(now, wal) ? { wal, walNames, sinceMs } : undefined;
  }

  /**
   * The state that a WAL, drained and without a name, has left; undefined if it may not be all of it, or if more may have
   * happened since it died.
   * @param index the header that governed when it was drained
   */
  async afterDeath(
    { wal, shm }: { readonly wal: OpenFile; readonly shm: OpenFile | undefined },
    index: WalIndexHeader | undefined,
  ): Promise<QuietState | undefined> {
    const stamp = stampOf(this.#files.database);
    const death = stampOf(wal);
    const born = this.#followed;
    this.#followed = undefined;
    if (shm === undefined) {
      if (stamp.mtimeNs < death.mtimeNs) return undefined;
    } else {
      if (index === undefined || index.backfill !== index.maxFrame) return undefined;
      const { links, ctimeNs } = stampOf(shm);
      // A WAL that was written after its index had lost its name was written by somebody who did not use that.
      if (links > 0n || death.mtimeNs > ctimeNs) return undefined;
    }
    // Losing its last name moved the WAL's ctime. A database whose times are before that tick was not written since,
    // and will show it when it is.
    if (death.links === 0n && stamp.mtimeNs < death.ctimeNs && stamp.ctimeNs < death.ctimeNs) {
      return { stamp, settled: true, journal: undefined };
    }
    await eventTurn();
    const tally = born && this.#events.tallyAtWalName(born.walNames + 1);
    if (tally === undefined || !this.#events.working) return undefined;
    return { stamp, settled: false, journal: undefined, events: { tally, sinceMs: born!.sinceMs } };
  }

  /** Whether a database that still has no `-wal` is as it was; 'settled' if its times alone will show that from now on. */
  isUnchanged(quiet: QuietState): boolean | 'settled' {
    const stamp = stampOf(this.#files.database);
    if (!stampsEqual(stamp, quiet.stamp)) return false;
    if (sightJournal(this.#files.journalPath).hot?.identity !== quiet.journal) return false;
    if (quiet.settled || quiet.journal !== undefined) return true;
    if (!this.#noneSince(quiet, this.#files.wal === undefined ? 0 : 1)) return false;
    return isSettled(stamp) ? 'settled' : true;
  }

  /** Whether the WAL at the path, whose first frames have been read, is the first since and holds all commits since. */
  async isFirstSince(quiet: QuietState): Promise<boolean> {
    if (quiet.journal !== undefined) return false;
    if (quiet.settled && stampsEqual(quiet.stamp, stampOf(this.#files.database))) return true;
    await eventTurn();
    return this.#noneSince(quiet, 1);
  }

  /** No event on any of the files but the birth of `births` WALs. */
  #noneSince(quiet: QuietState, births: number): boolean {
    const { events } = quiet;
    if (events === undefined || !this.#events.working || this.#events.trustedSince > events.sinceMs)
      return false;
    const { database, journal, walNames } = this.#events.tally;
    const { tally } = events;
    return database === tally.database && journal === tally.journal && walNames === tally.walNames + births;
  }
}
