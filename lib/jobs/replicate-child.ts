/**
 * Replication in a process of its own, for applications that have the database open themselves.
 *
 * On POSIX, closing any descriptor of a file drops every lock that the *process* holds on it, whoever took them. Were
 * capture to end inside an application whose own SQLite library has the database open, closing capture's descriptors
 * would drop SQLite's locks, and two writers could then write at once. A child process has locks of its own to lose: none.
 *
 * Options, credentials among them, go to the child over a channel: nothing of them is in its arguments or environment.
 * The child ends when it is told to, and also when its parent is gone.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, JetliteError } from '../errors.js';
import type { ReplicaOptions } from '../replica/open.js';
import type { ReplicateEvent, ReplicateOptions, ReplicateResult } from './replicate.js';

export interface ChildReplicateOptions extends Omit<ReplicateOptions, 'replica'> {
  /** Address of the replica; the child opens it. */
  readonly replica: string;
  readonly replicaOptions?: Omit<ReplicaOptions, 'onWarning' | 'env' | 'signal'>;
}

/** What the parent says. */
export type ToChild =
  | {
      readonly type: 'start';
      readonly options: Omit<ChildReplicateOptions, 'signal' | 'onEvent'>;
    }
  | { readonly type: 'stop' };

/** What the child says. */
export type FromChild =
  | { readonly type: 'event'; readonly event: ReplicateEvent }
  | { readonly type: 'result'; readonly result: ReplicateResult }
  | {
      readonly type: 'error';
      readonly message: string;
      readonly code: ErrorCode | undefined;
      readonly hint: string | undefined;
    };

const ENTRY = fileURLToPath(new URL('./replicate-child-main.js', import.meta.url));

/**
 * `replicate` in a child process: same options, result and errors. The child's process id is told by `onStart`.
 * @throws JetliteError as `replicate` does, and CAPTURE if the child ends without a result
 */
export async function replicateInChild(
  options: ChildReplicateOptions,
  onStart?: (pid: number) => void,
): Promise<ReplicateResult> {
  const { signal, onEvent, ...rest } = options;
  const child = fork(ENTRY, [], {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  if (child.pid !== undefined) onStart?.(child.pid);
  const stop = (): void => say(child, { type: 'stop' });
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const ended = outcome(child, onEvent);
    say(child, { type: 'start', options: rest });
    if (signal?.aborted) stop();
    return await ended;
  } finally {
    signal?.removeEventListener('abort', stop);
    if (child.connected) child.disconnect();
  }
}

function say(child: ChildProcess, message: ToChild): void {
  // A child that has just ended shows by its exit.
  if (child.connected) child.send(message, () => undefined);
}

function outcome(
  child: ChildProcess,
  onEvent: ((event: ReplicateEvent) => void) | undefined,
): Promise<ReplicateResult> {
  return new Promise((resolve, reject) => {
    child.on('message', (message: FromChild) => {
      if (message.type === 'event') onEvent?.(message.event);
      else if (message.type === 'result') resolve(message.result);
      else {
        const { code, hint } = message;
        reject(new JetliteError(code ?? 'CAPTURE', message.message, hint === undefined ? {} : { hint }));
      }
    });
    child.once('error', reject);
    child.once('exit', (code, killed) => {
      const how = killed === null ? `with exit code ${code}` : `by ${killed}`;
      reject(new JetliteError('CAPTURE', `the replicating child process ended ${how}`));
    });
  });
}
