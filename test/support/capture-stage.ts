/** What every capture scenario needs: a folder with a source and a replica, its processes, and the proof at the end. */
import { mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Ledger } from './oracle/ledger.js';
import { proveReplica, type ReplicaProof } from './oracle/replica-proof.js';
import { OracleWriter, type WriterOptions } from './oracle/writer.js';
import { peer } from './peers.js';
import { Replication, type ReplicationOptions } from './replication.js';
import { removeScratch } from './scratch.js';

/** JETLITE_LONG=1 runs the scenarios at full length. */
export const LONG = process.env.JETLITE_LONG === '1';

export class CaptureStage {
  readonly folder: string;
  readonly database: string;
  readonly replica: string;
  readonly #ledger: string;
  readonly #processes: { kill(): Promise<void> }[] = [];

  private constructor(folder: string) {
    this.folder = folder;
    this.database = join(folder, 'source', 'app.db');
    this.replica = join(folder, 'replica');
    this.#ledger = join(folder, 'ledger');
  }

  /** Undefined where there is no Python to write with: the test has been skipped then. */
  static async open(t: TestContext): Promise<CaptureStage | undefined> {
    if (!peer(t, 'python3')) return undefined;
    const stage = new CaptureStage(await mkdtemp(join(tmpdir(), 'jetlite-test-')));
    t.after(async () => {
      for (const child of stage.#processes) await child.kill();
      await removeScratch(stage.folder);
    });
    await mkdir(join(stage.folder, 'source'));
    return stage;
  }

  /** A writer of the source (or of another database), its commits in this stage's ledger. */
  async writer(options: WriterOptions = {}, database = this.database): Promise<OracleWriter> {
    const writer = await OracleWriter.start(database, { ledger: this.#ledger, ...options });
    this.#processes.push(writer);
    return writer;
  }

  async replicate(
    options: Partial<ReplicationOptions> = {},
    through: readonly string[] = [],
    env?: NodeJS.ProcessEnv,
  ): Promise<Replication> {
    const { database, replica } = this;
    const replication = await Replication.start({ database, replica, ...options }, through, env);
    this.#processes.push(replication);
    return replication;
  }

  get ledgerPath(): string {
    return this.#ledger;
  }

  ledger(): Ledger {
    return new Ledger(this.#ledger);
  }

  /** The proof of replica-proof.ts; the source must be closed. */
  async prove(options: { limit?: number; replica?: string } = {}): Promise<ReplicaProof> {
    const { folder, database, replica } = this;
    return proveReplica({ folder, database, replica, ledger: this.ledger(), ...options });
  }
}
