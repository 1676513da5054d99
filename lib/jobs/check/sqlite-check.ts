/** Asks SQLite (WebAssembly, in a thread of its own) whether a database file is sound, and what queries answer. */

import { Worker } from 'node:worker_threads';
import { JetliteError, throwIfAborted } from '../../errors.js';

export interface CheckOptions {
  /** A database file that nobody writes. Its `-wal`, if there is one, is not looked at. */
  readonly path: string;
  /** `quick` leaves out whether indexes match their tables. */
  readonly mode: 'none' | 'quick' | 'full';
  /** SQL, one statement each, read only. */
  readonly queries?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type QueryAnswer = { readonly text: string } | { readonly error: string };

export interface CheckResult {
  /** What is wrong with the database, at most 100 lines; none if it is sound. */
  readonly findings: readonly string[];
  /** In the order of the queries: rows as lines, columns joined with `|`, as SQLite's shell prints them. */
  readonly answers: readonly QueryAnswer[];
  /** Of SQLite. */
  readonly version: string;
}

/** What the thread is started with and what it sends back. */
export interface CheckTask {
  readonly path: string;
  readonly mode: CheckOptions['mode'];
  readonly queries: readonly string[];
}

export type CheckReply = CheckResult | { readonly failure: string };

/** Throws JetliteError DATABASE if the file cannot be read, ABORTED. Damage is a result. */
export async function checkDatabase(options: CheckOptions): Promise<CheckResult> {
  const { path, mode, queries = [], signal } = options;
  throwIfAborted(signal, 'the check');
  const task: CheckTask = { path, mode, queries };
  const worker = new Worker(new URL('./sqlite-worker.js', import.meta.url), {
    workerData: task,
    // What SQLite's loader prints is no result of ours.
    stdout: true,
    stderr: true,
  });
  const stop = (): void => void worker.terminate();
  signal?.addEventListener('abort', stop);
  try {
    const reply = await new Promise<CheckReply | undefined>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => resolve(undefined));
    });
    throwIfAborted(signal, 'the check');
    if (reply === undefined) throw new Error('the SQLite thread ended without an answer');
    if ('failure' in reply) throw new JetliteError('DATABASE', `cannot read ${path}: ${reply.failure}`);
    return reply;
  } finally {
    signal?.removeEventListener('abort', stop);
    await worker.terminate();
  }
}
