/** The child of replicate-child.ts: waits for its options, replicates, and says what became of it. */

import { JetliteError } from '../errors.js';
import { openReplica } from '../replica/open.js';
import { replicate } from './replicate.js';
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
    const replica = await openReplica(address, {
      ...replicaOptions,
      onWarning: (message) => void say({ type: 'event', event: { type: 'state', level: 'warn', message } }),
    });
    try {
      const result = await replicate({
        ...options,
        replica,
        signal: stopping.signal,
        onEvent: (event) => void say({ type: 'event', event }),
      });
      await say({ type: 'result', result });
    } finally {
      await replica.close();
    }
  } catch (error) {
    const known = error instanceof JetliteError ? error : undefined;
    await say({ type: 'error', message: (error as Error).message, code: known?.code, hint: known?.hint });
  }
  if (process.connected) process.disconnect();
}

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
