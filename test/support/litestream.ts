/** The real Litestream as writer and reader of replicas: `replicate` with its intervals squeezed, `restore`, `ltx`. */

import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { peer } from './peers.js';
import { scratchFolder } from './scratch.js';

interface Test {
  after(done: () => Promise<void>): void;
  skip(message?: string): void;
}

/** Durations are Go's. What is left out is squeezed as far as a test needs it. */
export interface LitestreamSettings {
  /** Intervals of level 1, 2, …; default 1s and 2s. */
  readonly levels?: readonly string[];
  readonly snapshotInterval?: string;
  readonly snapshotRetention?: string;
  readonly l0Retention?: string;
  readonly l0RetentionCheckInterval?: string;
  readonly checkpointInterval?: string;
  /** More keys of the `replica` block: username, password, … */
  readonly replica?: Readonly<Record<string, unknown>>;
}

export interface LitestreamFile {
  readonly level: number;
  readonly minTxid: string;
  readonly maxTxid: string;
  readonly size: number;
  /** The file's time in whole seconds, RFC 3339. */
  readonly timestamp: string;
}

/** Litestream, or undefined (and the test skipped) where version 0.5 is not installed. */
export function realLitestream(t: Test): Litestream | undefined {
  const program = peer(t, 'litestream');
  return program === undefined ? undefined : new Litestream(t, program);
}

/** A `replica` is an absolute folder, or `nats://host:port/BUCKET`: Litestream knows no prefix in a bucket. */
export class Litestream {
  readonly #test: Test;
  readonly #program: string;

  constructor(test: Test, program: string) {
    this.#test = test;
    this.#program = program;
  }

  /** Starts `litestream replicate`; resolves when it has taken up the database. Ended with the test. */
  async replicate(
    database: string,
    replica: string,
    settings: LitestreamSettings = {},
  ): Promise<LitestreamReplication> {
    const file = join(await scratchFolder(this.#test), 'litestream.json');
    await writeFile(file, configuration(database, replica, settings));
    const child = spawn(this.#program, ['replicate', '-config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    const running = new LitestreamReplication(child);
    this.#test.after(() => running.kill());
    await running.says('replicating to');
    return running;
  }

  /** `litestream restore` to a file that is not there: the newest state, a TXID (16 hex digits) or a moment. */
  async restore(
    replica: string,
    output: string,
    wish: { readonly txid?: string; readonly timestamp?: string } = {},
  ): Promise<void> {
    const txid = wish.txid === undefined ? [] : ['-txid', wish.txid];
    const timestamp = wish.timestamp === undefined ? [] : ['-timestamp', wish.timestamp];
    await this.#run(['restore', ...txid, ...timestamp, '-o', output, urlOf(replica)]);
  }

  /** What `litestream ltx` lists, of all levels. */
  async files(replica: string): Promise<LitestreamFile[]> {
    const listed = JSON.parse(await this.#run(['ltx', '-level', 'all', '-json', urlOf(replica)])) as Record<
      string,
      never
    >[];
    return listed.map((file) => ({
      level: file.level as number,
      minTxid: file.min_txid as string,
      maxTxid: file.max_txid as string,
      size: file.size as number,
      timestamp: file.timestamp as string,
    }));
  }

  async #run(args: readonly string[]): Promise<string> {
    const child = spawn(this.#program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw new Error(`litestream ${args.join(' ')}: exit code ${code}\n${output}${errors}`);
    return output;
  }
}

/** A running `litestream replicate`. */
export class LitestreamReplication {
  /** Everything it has logged so far. */
  log = '';
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | NodeJS.Signals>;
  #over = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    const keep = (text: Buffer): void => {
      this.log += text;
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    this.#ended = new Promise((resolve) => {
      const end = (outcome: number | NodeJS.Signals): void => {
        this.#over = true;
        resolve(outcome);
      };
      child.once('error', (error) => {
        this.log += error.message;
        end(-1);
      });
      child.once('close', (code, signal) => end(signal ?? code ?? -1));
    });
  }

  /** Resolves when the log holds the text; throws with the log if Litestream ends or says nothing of it for 30 s. */
  async says(text: string): Promise<void> {
    for (let tries = 0; !this.log.includes(text); tries++) {
      if (this.#over || tries === 1200) throw new Error(`litestream never said "${text}":\n${this.log}`);
      await delay(25);
    }
  }

  /** Ends it as a service would be ended: it uploads what is left first. Throws with the log if that fails. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    const outcome = await this.#ended;
    if (outcome !== 0) throw new Error(`litestream ended with ${outcome}:\n${this.log}`);
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

/** JSON is YAML too. */
function configuration(database: string, replica: string, settings: LitestreamSettings): string {
  const place = replica.startsWith('nats:')
    ? { type: 'nats', url: replica }
    : { type: 'file', path: replica };
  return JSON.stringify({
    levels: (settings.levels ?? ['1s', '2s']).map((interval) => ({ interval })),
    snapshot: {
      interval: settings.snapshotInterval ?? '1h',
      retention: settings.snapshotRetention ?? '24h',
    },
    'l0-retention': settings.l0Retention ?? '1h',
    'l0-retention-check-interval': settings.l0RetentionCheckInterval ?? '1s',
    dbs: [
      {
        path: database,
        'monitor-interval': '20ms',
        'checkpoint-interval': settings.checkpointInterval ?? '1s',
        replica: { ...place, 'sync-interval': '20ms', ...settings.replica },
      },
    ],
  });
}

function urlOf(replica: string): string {
  return replica.startsWith('nats:') ? replica : `file://${replica}`;
}
