/**
 * What a writer at full speed feels of a replicator beside it: its throughput, its longest stall, how large its WAL
 * grew, the SQLITE_BUSY errors it met, and what the replicator used. Interleaved runs, medians.
 *
 *     node dist/scripts/bench/beside.js [--seconds 10] [--rounds 3]
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'nats';
import { startNatsServer } from '../../test/support/nats-server.js';
import { OracleWriter } from '../../test/support/oracle/writer.js';
import { peerPath } from '../../test/support/peers.js';
import { DRIVER } from '../../test/support/replication.js';
import { cpuSeconds, median, numberOption, peakResidentBytes, printTable } from './figures.js';

const seconds = numberOption('seconds', 10);
const rounds = numberOption('rounds', 3);

interface Companion {
  readonly name: string;
  /** Starts the replicator of `database` into `replica`; undefined for none. */
  start(database: string, replica: string): ChildProcess | undefined;
  readonly nats: boolean;
}

interface Run {
  readonly commitsPerSecond: number;
  readonly longestStallMs: number;
  readonly largestWalBytes: number;
  readonly busy: number;
  readonly cpu: number;
  readonly residentBytes: number;
}

async function run(companion: Companion): Promise<Run> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-bench-'));
  const database = join(folder, 'source.db');
  try {
    const writer = await OracleWriter.start(database, { paused: true, sizes: [[1, 1, 1]], seed: 7 });
    await writer.command('step 5000');
    const replica = companion.nats ? await newBucket() : `file://${join(folder, 'replica')}`;
    const replicator = companion.start(database, replica);
    await sleep(2000); // its first snapshot
    const cpuBefore = replicator ? cpuSeconds(replicator.pid!) : 0;
    const before = (await writer.resume()).seq;
    await sleep(seconds * 1000);
    const committed = (await writer.pause()).seq - before;
    const cpu = replicator ? cpuSeconds(replicator.pid!) - cpuBefore : 0;
    const residentBytes = replicator ? peakResidentBytes(replicator.pid!) : 0;
    const report = await writer.stop();
    if (replicator) {
      const ended = new Promise((resolve) => replicator.on('exit', resolve));
      replicator.kill('SIGTERM');
      await ended;
    }
    const { longestStallMs, largestWalBytes, busy } = report;
    return {
      commitsPerSecond: committed / seconds,
      longestStallMs,
      largestWalBytes,
      busy,
      cpu,
      residentBytes,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const cleanUps: (() => Promise<void>)[] = [];
const server = await startNatsServer(
  { after: (cleanUp) => cleanUps.push(cleanUp), skip: () => {} },
  // Without these limits a server drops what Litestream sends faster than it can be stored.
  { jetstream: 'max_buffered_size: 1GB\nmax_buffered_msgs: 100000' },
);
let buckets = 0;

/** The URL of a new, empty bucket. */
async function newBucket(): Promise<string> {
  const connection = await connect({ servers: server!.url });
  const bucket = `bench-${++buckets}`;
  await connection.jetstream().views.os(bucket);
  await connection.close();
  return `${server!.url}/${bucket}`;
}

function jetlite(database: string, replica: string): ChildProcess {
  // It ends with its stdin, so that must stay open.
  return spawn(process.execPath, [DRIVER, JSON.stringify({ database, replica })], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
}

const companions: Companion[] = [
  { name: 'alone', nats: false, start: () => undefined },
  { name: 'beside Jetlite, folder', nats: false, start: jetlite },
];
if (server) companions.push({ name: 'beside Jetlite, NATS', nats: true, start: jetlite });
const litestream = peerPath('litestream');
if (litestream) {
  const start = (database: string, replica: string): ChildProcess =>
    spawn(litestream, ['replicate', database, replica], { stdio: 'ignore' });
  companions.push({ name: 'beside Litestream, folder', nats: false, start });
  if (server) companions.push({ name: 'beside Litestream, NATS', nats: true, start });
}

const runs = companions.map((): Run[] => []);
for (let round = 0; round < rounds; round++) {
  for (const [index, companion] of companions.entries()) runs[index]!.push(await run(companion));
}

const of = (index: number, figure: keyof Run): number => median(runs[index]!.map((one) => one[figure]));
const alone = of(0, 'commitsPerSecond');
console.log(`one-row commits at full speed for ${seconds} s, medians of ${rounds} interleaved runs\n`);
printTable(
  ['', 'commits/s', 'of alone', 'longest stall ms', 'largest WAL MB', 'busy', 'CPU s', 'resident MB'],
  companions.map(({ name }, index) => [
    name,
    of(index, 'commitsPerSecond').toFixed(0),
    (of(index, 'commitsPerSecond') / alone).toFixed(3),
    of(index, 'longestStallMs').toFixed(1),
    (of(index, 'largestWalBytes') / 1e6).toFixed(1),
    of(index, 'busy').toFixed(0),
    of(index, 'cpu').toFixed(2),
    (of(index, 'residentBytes') / 1e6).toFixed(0),
  ]),
);
for (const cleanUp of cleanUps) await cleanUp();
