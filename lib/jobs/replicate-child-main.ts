/** The child of replicate-child.ts: waits for its options, replicates, and says what became of it. */

import { JetliteError } from '../errors.js';
import { openReplica } from '../replica/open.js';
import { awaitReplica } from './await-replica.js';
import { type ReplicateEvent, type ReplicateResult, replicate } from './replicate.js';
import type { FromChild, ToChild } from './replicate-child.js';

const stopping = new AbortController();

function say(message: FromChild): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) resolve();
    else process.send(message, () => resolve());
  });
}

async function run({ replica: address, replicaOptions, ...options }: StartOptions): Promise<void> {
  try {
    const { signal } = stopping;
    const onEvent = (event: ReplicateEvent): void => void say({ type: 'event', event });
    const onWarning = (message: string): void => onEvent({ type: 'state', level: 'warn', message });
    const open = () => openReplica(address, { ...replicaOptions, onWarning, signal });
    const once = options.once === true;
    const replica = await awaitReplica(open, { once, signal, onEvent });
    try {
      const result =
        replica === undefined ? NOTHING_DONE : await replicate({ ...options, replica, signal, onEvent });
      await say({ type: 'result', result });
    } finally {
      await replica?.close();
    }
  } catch (error) {
    const known = error instanceof JetliteError ? error : undefined;
    await say({ type: 'error', message: (error as Error).message, code: known?.code, hint: known?.hint });
  }
  if (process.connected) process.disconnect();
}

/** The result of being told to stop before the replica answered. */
const NOTHING_DONE: ReplicateResult = { txid: 0n, commits: 0, files: 0, bytes: 0, images: 0, restarts: 0 };

type StartOptions = Extract<ToChild, { type: 'start' }>['options'];

process.on('message', (message: ToChild) => {
  if (message.type === 'start') void run(message.options);
  else stopping.abort();
});
// The parent is gone: what was committed by now is still taken.
process.on('disconnect', () => stopping.abort());
// A terminal's Ctrl-C reaches the whole group; the parent says when to stop.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => stopping.abort());
