/** Opening a replica that may be out of reach just now. */

import type { Replica } from '../replica/replica.js';
import { Attempts, hasCode, isAway } from './session/attempts.js';
import type { ReplicateEvent } from './session/replicate-event.js';

export interface AwaitReplicaOptions {
  /** Do not wait. */
  readonly once?: boolean;
  /** Firing it ends the waiting. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ReplicateEvent) => void;
}

/**
 * What `open` gives, as soon as somebody answers: a server that is down is waited for, and `onEvent` hears of it. What
 * waiting does not mend (wrong password, no such bucket) is thrown at once.
 * @returns undefined if told to stop before anybody answered
 */
export async function awaitReplica(
  open: () => Promise<Replica>,
  options: AwaitReplicaOptions = {},
): Promise<Replica | undefined> {
  const { signal, once, onEvent } = options;
  const attempts = new Attempts({
    signal,
    once,
    onRetry: ({ message }) =>
      onEvent?.({ type: 'retry', level: 'warn', message: `${message}; waiting for it` }),
  });
  try {
    return await attempts.run(open, isAway);
  } catch (error) {
    if (signal?.aborted && (isAway(error) || hasCode(error, 'ABORTED'))) return undefined;
    throw error;
  } finally {
    attempts.close();
  }
}
