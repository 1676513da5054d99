/**
 * From a commit to the moment at which readers of a live copy see it: a writer, `replicate`, a NATS server and a follower,
 * each a process of its own, on this machine. One commit at a time, and a steady stream of them.
 *
 *     node dist/scripts/bench/follow.js [--commits 300] [--rate 100]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { follow } from '../../lib/jobs/follow.js';
import { openReplica } from '../../lib/replica/open.js';
import { makeBucket } from '../../test/support/nats-replica.js';
import { startNatsServer } from '../../test/support/nats-server.js';
import { Ledger } from '../../test/support/oracle/ledger.js';
import { OracleWriter } from '../../test/support/oracle/writer.js';
import { Replication } from '../../test/support/replication.js';
import { numberOption, printTable } from './figures.js';

const commits = numberOption('commits', 300);
const rate = numberOption('rate', 100);
const ROWS = { sizes: [[1, 1, 1]], largePayloadShare: 0 } as const;

/** As the replicating process tells of it: numbers beyond JSON's are text. */
interface PutEvent {
  readonly type: string;
  readonly file: { readonly maxTxid: string };
  readonly commits: number;
}

const endings: (() => Promise<void>)[] = [];
const bench = {
  after: (end: () => Promise<void>) => void endings.push(end),
  skip: (message?: string) => {
    throw new Error(message);
  },
};

function share(values: readonly number[], part: number): string {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].toFixed(1);
}

/** Milliseconds since the epoch, finer than Date.now(). */
function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-bench-'));
  endings.push(() => rm(folder, { recursive: true, force: true }));
  const server = await startNatsServer(bench);
  if (server === undefined) throw new Error('there is no nats-server');
  await makeBucket(server);
  const database = join(folder, 'app.db');
  const ledger = join(folder, 'ledger');
  const writer = await OracleWriter.start(database, { ...ROWS, paused: true, ledger, rate });
  endings.push(() => writer.kill());
  const url = `${server.url}/backups`;
  const replication = await Replication.start({ database, replica: url });
  endings.push(() => replication.kill());
  await replication.firstPut();

  const replica = await openReplica(url, { env: {} });
  const stopping = new AbortController();
  let applied = () => {};
  let begun = () => {};
  const started = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const appliedAt: { readonly txid: bigint; readonly ms: number }[] = [];
  const following = follow({
    replica,
    output: join(folder, 'copy.db'),
    signal: stopping.signal,
    onEvent: ({ type, txid }) => {
      if (type === 'following') begun();
      if (type !== 'applied') return;
      appliedAt.push({ txid, ms: nowMs() });
      applied();
    },
  });
  await started;
  await sleep(500);

  const single: number[] = [];
  const durable: number[] = [];
  for (let i = 0; i < commits; i++) {
    const seen = new Promise<void>((resolve) => {
      applied = resolve;
    });
    const put = replication.nextPut();
    await writer.command('step 1');
    await seen;
    const states = new Ledger(ledger);
    const committedMs = states.timeMs(states.length - 1);
    single.push(appliedAt.at(-1)!.ms - committedMs);
    await put;
    // When the replicator knew, not when this process, busy with the copy, heard of it.
    durable.push(
      replication.happenedMs(replication.events.findLast(({ type }) => type === 'put')!) - committedMs,
    );
    await sleep(40);
  }
  await sleep(500);

  const first = new Ledger(ledger).length;
  await writer.resume();
  await sleep((1000 * commits) / rate);
  await writer.pause();
  await sleep(1000);
  const states = new Ledger(ledger);
  const streamed: number[] = [];
  // Each put tells how many commits it holds; counted from the last one back, that says where in the ledger it ends.
  let end = states.length;
  for (const { type, file, commits: held } of ([...replication.events] as unknown as PutEvent[]).reverse()) {
    if (type !== 'put' || end <= first) continue;
    const seen = appliedAt.find(({ txid }) => txid >= BigInt(file.maxTxid));
    for (let index = Math.max(first, end - held); index < end && seen !== undefined; index++) {
      streamed.push(seen.ms - states.timeMs(index));
    }
    end -= held;
  }
  const rows = [
    [
      '(one at a time: durable)',
      String(durable.length),
      share(durable, 0.5),
      share(durable, 0.99),
      share(durable, 1),
    ],
    ['one at a time', String(single.length), share(single, 0.5), share(single, 0.99), share(single, 1)],
    [
      `${rate} a second`,
      String(streamed.length),
      share(streamed, 0.5),
      share(streamed, 0.99),
      share(streamed, 1),
    ],
  ];
  printTable(['commit to applied, ms', 'commits', 'p50', 'p99', 'most'], rows);
  stopping.abort();
  await following;
  await replica.close();
}

try {
  await main();
} finally {
  for (const end of endings.reverse()) await end();
}
