/**
 * The oracle writer (writer.py, which describes options and commands): a real SQLite in a process of its own, whose
 * every commit records the state it leaves, so that any copy can prove which commit it stands at.
 */
import { JsonLinesChild } from '../json-lines.js';
import type { CommittedState } from './ledger.js';
import { python } from './python.js';

/** All optional; writer.py has the defaults and units. */
export interface WriterOptions {
  seed?: number;
  pageSize?: number;
  reservedBytes?: number;
  /** 0 none, 1 full, 2 incremental. */
  autoVacuum?: 0 | 1 | 2;
  firstSeq?: number;
  journalMode?: 'wal' | 'delete' | 'truncate' | 'persist' | 'memory' | 'off';
  synchronous?: 'off' | 'normal' | 'full' | 'extra';
  cacheSize?: number;
  autocheckpoint?: number;
  lockingMode?: 'normal' | 'exclusive';
  psow?: boolean;
  secureDelete?: boolean;
  /** [weight, fewest rows, most rows] of each size of transaction. */
  sizes?: readonly (readonly [number, number, number])[];
  payload?: readonly [number, number];
  largePayload?: readonly [number, number];
  largePayloadShare?: number;
  /** Grows to the second number of rows, shrinks to the first, and so on. */
  rows?: readonly [number, number];
  rollbackShare?: number;
  savepointShare?: number;
  schemaShare?: number;
  checkpointEvery?: number;
  checkpointModes?: readonly CheckpointMode[];
  checkpointOther?: number;
  vacuumEvery?: number;
  incrementalVacuumEvery?: number;
  reopenEverySeconds?: number;
  journalModes?: readonly string[];
  journalModeEverySeconds?: number;
  commits?: number;
  seconds?: number;
  rate?: number;
  paused?: boolean;
  ledger?: string;
}

export type CheckpointMode = 'PASSIVE' | 'FULL' | 'RESTART' | 'TRUNCATE';

export interface TransactionWish {
  rows?: number;
  kind?: 'insert' | 'update' | 'delete' | 'transfer' | 'mixed';
  /** `hold` leaves the transaction open until `commit` or `rollback`. */
  end?: 'commit' | 'rollback' | 'hold';
}

export interface WriterReport extends CommittedState {
  readonly commits: number;
  /** SQLITE_BUSY errors, each tried again until it went through. */
  readonly busy: number;
  readonly rollbacks: number;
  readonly savepoints: number;
  readonly checkpoints: number;
  readonly vacuums: number;
  readonly reopens: number;
  readonly journalModes: number;
  /** Seconds spent in transactions. */
  readonly seconds: number;
  readonly commitsPerSecond: number;
  /** The longest transaction, from BEGIN until COMMIT returned. */
  readonly longestStallMs: number;
  readonly largestWalBytes: number;
}

export class OracleWriter {
  readonly #child: JsonLinesChild;

  private constructor(child: JsonLinesChild) {
    this.#child = child;
  }

  /** Starts a writer and resolves when the database is open (and created, if it was not there). */
  static async start(database: string, options: WriterOptions = {}): Promise<OracleWriter> {
    const child = new JsonLinesChild(...python('writer.py', database, JSON.stringify(options)));
    await child.next();
    return new OracleWriter(child);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get ended(): Promise<number | NodeJS.Signals> {
    return this.#child.ended;
  }

  /** Any command of writer.py that is answered; resolves with the answer. */
  async command(text: string): Promise<CommittedState & { readonly result?: unknown }> {
    return (await this.#child.ask(text)) as unknown as CommittedState & { readonly result?: unknown };
  }

  pause(): Promise<CommittedState> {
    return this.command('pause');
  }

  resume(): Promise<CommittedState> {
    return this.command('resume');
  }

  /** A checkpoint; answers SQLite's row: busy, frames in the WAL, frames checkpointed. */
  async checkpoint(mode: CheckpointMode, from: 'same' | 'other' = 'same'): Promise<number[]> {
    return (await this.command(`checkpoint ${mode}${from === 'other' ? ' other' : ''}`)).result as number[];
  }

  transaction(wish: TransactionWish): Promise<CommittedState> {
    return this.command(`transaction ${JSON.stringify(wish)}`);
  }

  /** Ends the writer at the next commit; it closes its connections. */
  async stop(): Promise<WriterReport> {
    const report = await this.#child.ask('stop');
    await this.#child.ended;
    return report as unknown as WriterReport;
  }

  /** The report of a writer that ends by itself (`commits`, `seconds`). */
  async report(): Promise<WriterReport> {
    const report = await this.#child.next();
    await this.#child.ended;
    return report as unknown as WriterReport;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.signal(signal);
  }

  /** kill -9, wherever it is just then. */
  kill(): Promise<void> {
    return this.#child.kill();
  }
}
