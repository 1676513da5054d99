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
import { OracleWriter } from '../../test/support/oracle/writer.js';
import { peerPath } from '../../test/support/peers.js';
import { cpuSeconds, median, numberOption, peakResidentBytes, printTable } from './figures.js';

const seconds = numberOption('seconds', 10);
const rounds = numberOption('rounds', 3);

interface Companion {
  readonly name: string;
  /** Starts the replicator of `database` into `folder`; undefined for none. */
  start(database: string, folder: string): ChildProcess | undefined;
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
    const replicator = companion.start(database, join(folder, 'replica'));
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

const companions: Companion[] = [{ name: 'alone', start: () => undefined }];
const litestream = peerPath('litestream');
if (litestream) {
  companions.push({
    name: 'beside Litestream',
    start: (database, folder) =>
      spawn(litestream, ['replicate', database, `file://${folder}`], { stdio: 'ignore' }),
  });
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
