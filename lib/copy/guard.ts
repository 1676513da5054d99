/**
 * SQLite beside a live copy, in a process of its own, where Node brings it (node:sqlite, Node 22.5 on).
 *
 * It keeps a read transaction open, so that no reader is ever the last to close (which would checkpoint and remove the
 * WAL) and no local writer can start the WAL over. Two connections take turns, so that what it reads moves on. And it
 * checkpoints, between two commits of the follower.
 *
 * The process is only ever killed, never ended: closing its connections would be the very thing that it guards against.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What the child is asked. */
export type ToGuard =
  | { readonly do: 'turn' }
  /** Tries for so long, milliseconds, to have the WAL copied into the database and cut to nothing. */
  | { readonly do: 'checkpoint'; readonly patienceMs: number };

/** Its answer: for a checkpoint, whether the WAL is empty now. */
export type FromGuard = { readonly done: boolean } | { readonly failed: string };

const ENTRY = fileURLToPath(new URL('./guard-child.js', import.meta.url));
const FLAG = '--experimental-sqlite';
/** A checkpoint syncs twice; a disk that takes longer is as good as gone. */
const ANSWER_MS = 120_000;

/** Whether this Node brings SQLite. */
export function hasSqlite(): boolean {
  const [major, minor] = process.versions.node.split('.').map(Number);
  return major > 22 || (major === 22 && minor >= 5);
}

/** The guard is gone; the next thing asked of it starts another. */
export class GuardFailed extends Error {}

export class Guard {
  readonly #path: string;
  #child: ChildProcess | undefined;
  #answer: ((answer: FromGuard) => void) | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Begins a read transaction at the newest commit and ends the one before. */
  async turn(): Promise<void> {
    await this.#ask({ do: 'turn' });
  }

  /** Whether the WAL was emptied. Nothing may be appended until this has resolved or thrown. */
  async checkpoint(patienceMs: number): Promise<boolean> {
    return await this.#ask({ do: 'checkpoint', patienceMs });
  }

  /** Resolves when the process is gone. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.ref();
    child.kill('SIGKILL');
    await gone;
  }

  async #ask(wish: ToGuard): Promise<boolean> {
    this.#child ??= this.#start();
    const child = this.#child;
    const answer = await new Promise<FromGuard>((resolve) => {
      const timer = setTimeout(() => resolve({ failed: 'it does not answer' }), ANSWER_MS);
      this.#answer = (given) => {
        clearTimeout(timer);
        resolve(given);
      };
      child.send(wish, (error) => error && this.#answer?.({ failed: error.message }));
    });
    this.#answer = undefined;
    if ('done' in answer) return answer.done;
    // Until it is gone it might still be at it.
    await this.stop();
    throw new GuardFailed(`the SQLite process that guards ${this.#path} failed: ${answer.failed}`);
  }

  #start(): ChildProcess {
    const flags = process.allowedNodeEnvironmentFlags.has(FLAG) ? [FLAG] : [];
    const child = fork(ENTRY, [this.#path], {
      execArgv: ['--disable-warning=ExperimentalWarning', ...flags],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    child.on('message', (message: FromGuard) => this.#answer?.(message));
    const ended = (why: string) => {
      if (this.#child === child) this.#child = undefined;
      this.#answer?.({ failed: why });
    };
    child.on('error', (error) => ended(error.message));
    child.on('exit', (code, signal) => ended(`it ended (${signal ?? code})`));
    child.unref();
    child.channel?.unref();
    return child;
  }
}
