/**
 * A process that does nothing but replicate, so that signals hit a real one. Options as JSON in the first argument.
 * Prints {"ready": pid}, {"event": …, "atMs": …} for each event, and at the end {"ended": result} or {"failed": …}. The end of
 * stdin, SIGTERM and SIGINT stop it cleanly.
 */
import { performance } from 'node:perf_hooks';
import { JetliteError } from '../../lib/errors.js';
import { awaitReplica } from '../../lib/jobs/await-replica.js';
import { type ReplicateEvent, replicate } from '../../lib/jobs/replicate.js';
import { openReplica } from '../../lib/replica/open.js';
import type { ReplicationOptions } from './replication.js';

function print(line: unknown): void {
  const text = JSON.stringify(line, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
  process.stdout.write(`${text}\n`);
}

// What goes on beside by the clock would come into tests of other things by chance, and so would a machine that is too busy
// to upload what it should in the usual time.
const asked = JSON.parse(process.argv[2] ?? '{}') as ReplicationOptions;
const options = { levels: false, stopTimeoutMs: 120_000, ...asked } as const;
const stopping = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stopping.abort());
process.stdin.on('end', () => stopping.abort()).resume();

print({ ready: process.pid });
try {
  const onEvent = (event: ReplicateEvent): void =>
    print({ event, atMs: performance.timeOrigin + performance.now() });
  const { nats, once = false } = options;
  const { signal } = stopping;
  const open = () => openReplica(options.replica, nats === undefined ? {} : { nats });
  const replica = await awaitReplica(open, { signal, once, onEvent });
  if (replica === undefined) throw new Error('stopped before the replica answered');
  try {
    print({ ended: await replicate({ ...options, replica, signal, onEvent }) });
  } finally {
    await replica.close();
  }
} catch (error) {
  const { code, hint } = error instanceof JetliteError ? error : {};
  print({ failed: { code, hint, message: (error as Error).message, stack: (error as Error).stack } });
  process.exitCode = 1;
}
// As the program does: what a connection that was let go still waits for is of no interest.
process.stdout.write('', () => process.exit());
