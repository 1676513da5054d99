/**
 * Rounds of tidying (tidy.ts) beside a replication: at the end of each interval of the first level, counted from
 * the epoch, so that replicas are looked after at the same even times wherever they are.
 *
 * 1. One round at a time. A round never makes a put wait: it yields at every block of a merge, and a trouble of its own,
 *    such as a replica out of reach, is no trouble of the replication; the next round tries again.
 * 2. Of several replicators or cron jobs the one that holds the lease does the work; the others pass.
 * 3. A warning is given once.
 * 4. Where files are removed, what that leaves behind is swept in the first round and then once an hour.
 */

import { performance } from 'node:perf_hooks';
import { LeaseLostError } from '../../errors.js';
import type { LtxFileInfo } from '../../replica/replica.js';
import { hasCode, pause } from '../session/attempts.js';
import type { Companion, SessionParts } from '../session/companion.js';
import type { Lease } from './lease.js';
import { snapshotLive } from './snapshot.js';
import { DEFAULT_LEVELS, type LevelSettings, type TidyEvent, tidy, type UpkeepSettings } from './tidy.js';

const SWEEP_INTERVAL_MS = 3_600_000;

/** A companion of a replication. */
export function startUpkeep(session: SessionParts): Companion {
  const { levels, once } = session.options;
  if (levels === false || once === true) return { stop: async () => {} };
  const stopping = new AbortController();
  const ended = new Upkeep(session, levels ?? {}, stopping.signal).run();
  return {
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
}

class Upkeep {
  readonly #session: SessionParts;
  readonly #settings: LevelSettings;
  readonly #retain: boolean;
  readonly #signal: AbortSignal;
  readonly #warned = new Set<string>();
  #sweepDueMs = 0;

  constructor(session: SessionParts, settings: UpkeepSettings, signal: AbortSignal) {
    this.#session = session;
    this.#settings = { ...DEFAULT_LEVELS, ...settings };
    this.#retain = settings.retention !== false;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const { uploader } = this.#session;
    await uploader.whenDurable(1n, this.#signal);
    while (!this.#signal.aborted) {
      const now = Date.now();
      const intervalMs = this.#settings.levelIntervalsMs[0] ?? DEFAULT_LEVELS.levelIntervalsMs[0];
      await pause(Math.floor(now / intervalMs + 1) * intervalMs - now, this.#signal);
      if (!this.#signal.aborted) await this.#round();
    }
  }

  async #round(): Promise<void> {
    try {
      const result = await tidy(this.#session.replica, {
        settings: this.#settings,
        retain: this.#retain,
        sweep: this.#retain && performance.now() >= this.#sweepDueMs,
        damaged: this.#session.damaged,
        signal: this.#signal,
        putSnapshot: (lease) => this.#putSnapshot(lease),
        onEvent: (event) => this.#tell(event),
      });
      if (result.kind === 'done' && result.swept?.isDone)
        this.#sweepDueMs = performance.now() + SWEEP_INTERVAL_MS;
      if (result.kind === 'busy') this.#debug(`${result.holder} is merging files; nothing to do here`);
    } catch (error) {
      const message = `merging and removing files stopped: ${(error as Error).message}`;
      const passes = error instanceof LeaseLostError || hasCode(error, 'ABORTED', 'REPLICA');
      if (this.#signal.aborted || passes) this.#debug(message);
      else this.#tell({ type: 'stuck', level: 'warn', message });
    }
  }

  /** From the live database, which spares reading the replica. */
  async #putSnapshot({ version, signal }: Lease): Promise<LtxFileInfo | undefined> {
    try {
      return await snapshotLive(this.#session, { lease: version, signal });
    } catch (error) {
      if (hasCode(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  #tell(event: TidyEvent): void {
    if (event.level === 'warn') {
      if (this.#warned.has(event.message)) return;
      this.#warned.add(event.message);
    }
    this.#session.emit(event);
  }

  #debug(message: string): void {
    this.#session.emit({ type: 'upkeep', level: 'debug', message });
  }
}
