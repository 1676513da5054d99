/** A source that is backed up step by step, and a live copy of it that takes the steps in when the test says so. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { LiveCopy } from '../../lib/copy/live-copy.js';
import { backup } from '../../lib/jobs/backup.js';
import { applyPlan } from '../../lib/jobs/following/apply-plan.js';
import { planRestore } from '../../lib/jobs/plan.js';
import { restore } from '../../lib/jobs/restore.js';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { Application } from './application.js';

export class CopyStage {
  readonly source: Application;
  readonly replica: Replica;
  readonly path: string;
  readonly statePath: string;

  private constructor(source: Application, replica: Replica) {
    this.source = source;
    this.replica = replica;
    this.path = join(source.folder, 'copy.db');
    this.statePath = join(source.folder, 'copy-state');
  }

  /** With a table `t` that holds its first row. Undefined where there is no Python: the test has been skipped then. */
  static async open(t: TestContext, mode = 'wal', pageSize = 4096): Promise<CopyStage | undefined> {
    const source = await Application.inScratchFolder(t);
    if (source === undefined) return undefined;
    await source.open({ pragmas: [`page_size = ${pageSize}`, `journal_mode = ${mode}`] });
    const stage = new CopyStage(source, await openFileReplica(join(source.folder, 'replica')));
    await stage.step('CREATE TABLE t (n INTEGER PRIMARY KEY, filler)', 'INSERT INTO t VALUES (1, NULL)');
    return stage;
  }

  /** Changes the source, and puts that into the replica as one TXID. */
  async step(...sql: string[]): Promise<void> {
    await this.source.run(...sql);
    await backup({ database: this.source.path, replica: this.replica });
  }

  /** One more row, as one TXID: what a reader counts is how many there were. */
  async row(filler = 'NULL'): Promise<void> {
    await this.step(`INSERT INTO t (filler) VALUES (${filler})`);
  }

  async restoreCopy(): Promise<LiveCopy> {
    const { replica, path, statePath } = this;
    await restore({
      replica,
      output: path,
      prepare: (file, { pageSize, txid, timestampMs, pageCount }) => {
        const identity = { replica: replica.url, pageSize };
        LiveCopy.prepare(path, file.fd, statePath, { ...identity, txid, timestampMs, pageCount });
      },
    });
    return this.openCopy()!;
  }

  openCopy(): LiveCopy | undefined {
    return LiveCopy.open(this.path, this.statePath, this.replica.url);
  }

  /** Takes in everything that is in the replica, as a follower would. */
  async apply(copy: LiveCopy): Promise<void> {
    copy.check();
    const have = copy.mustMend ? 0n : copy.txid;
    const plan = planRestore(await this.replica.list(), { kind: 'newest' }, have);
    if (plan.files.length > 0) await applyPlan(copy, plan, this.replica, 8);
  }
}

/** Connections to the copy, of one process that is not the follower's. */
export class CopyReaders {
  readonly #application: Application;

  constructor(t: TestContext, path: string) {
    this.#application = Application.start(t, path)!;
  }

  become(user: number): Promise<void> {
    return this.#application.become(user);
  }

  async open(on: string, mode: 'ro' | 'rw' = 'ro'): Promise<void> {
    await this.#application.open({ on, query: `?mode=${mode}` });
    await this.#application.on(on, 'PRAGMA busy_timeout = 10000');
  }

  /** Rows of `t`, after a look at the whole database. */
  async count(on: string): Promise<number> {
    const [[verdict]] = await this.#application.on(on, 'PRAGMA integrity_check');
    if (verdict !== 'ok') throw new Error(`integrity_check: ${verdict}`);
    const [[rows]] = await this.#application.on(on, 'SELECT count(*) FROM t');
    return rows as number;
  }

  run(on: string, ...sql: string[]): Promise<unknown> {
    return this.#application.on(on, ...sql);
  }

  close(on: string): Promise<void> {
    return this.#application.close(on);
  }
}
