/**
 * What capture itself can do: image and following in MB/s; and what a replicating process uses, idle and with a large
 * database.
 *
 *     node dist/scripts/bench/capture.js [--megabytes 1000] [--rounds 3] [--idle-seconds 20]
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Capture } from '../../lib/capture/capture.js';
import { OracleWriter, type WriterOptions } from '../../test/support/oracle/writer.js';
import { Replication } from '../../test/support/replication.js';
import { cpuSeconds, median, numberOption, peakResidentBytes, printTable } from './figures.js';

const megabytes = numberOption('megabytes', 1000);
const rounds = numberOption('rounds', 3);
const idleSeconds = numberOption('idle-seconds', 20);

/** Rows of a few KB, no checkpoint but those asked for. */
const BULK: WriterOptions = {
  paused: true,
  synchronous: 'off',
  autocheckpoint: 0,
  payload: [500, 6000],
  largePayloadShare: 0,
  rows: [1, 100_000_000],
};
/** About 16 MB, and about 0.7 MB. */
const MANY_ROWS = 5000;
const SOME_ROWS = 200;

async function sizeOf(path: string): Promise<number> {
  return (await stat(path)).size;
}

/** Takes everything that capture has to give, for nobody. */
async function drain(capture: Capture): Promise<void> {
  for (;;) {
    const state = await capture.poll();
    const batch = capture.take();
    if (batch) capture.recycle(batch.pages);
    if (state === 'current') return;
    if (state === 'wait') await capture.wait(5);
  }
}

/** An image into an empty set: one that cannot be handed on while it is read, because checkpoints interfere. */
async function copied(database: string): Promise<void> {
  const capture = Capture.open({ database, scratchDir: folder, fileEvents: false });
  await capture.poll();
  capture.close();
}

/** An image after a gap in which nothing was lost: every page is compared with its checksum. */
async function compared(database: string, known: Capture): Promise<void> {
  const capture = Capture.open({ database, scratchDir: folder, fileEvents: false });
  let first = 1;
  for (const bytes of known.sums.serialise()) {
    capture.sums.load(first, bytes);
    first += bytes.length / 8;
  }
  await capture.poll();
  if (capture.take() !== undefined) throw new Error('pages differ that nobody wrote');
  capture.close();
}

const folder = await mkdtemp(join(tmpdir(), 'jetlite-bench-'));
try {
  const database = join(folder, 'source.db');
  const writer = await OracleWriter.start(database, BULK);
  while ((await sizeOf(database)) < megabytes * 1e6) {
    await writer.transaction({ rows: MANY_ROWS, kind: 'insert' });
    await writer.checkpoint('TRUNCATE');
  }
  const databaseMB = (await sizeOf(database)) / 1e6;

  const speedOf = async (read: () => Promise<void>): Promise<number> => {
    const started = performance.now();
    await read();
    return databaseMB / ((performance.now() - started) / 1000);
  };
  const streams: number[] = [];
  const compares: number[] = [];
  const copies: number[] = [];
  const follows: number[] = [];
  let walMB = 0;
  for (let round = 0; round < rounds; round++) {
    const capture = Capture.open({
      database,
      scratchDir: folder,
      onEvent: ({ type, message }) => {
        if (type === 'gap') console.log(`round ${round + 1}: ${message}`);
      },
    });
    copies.push(await speedOf(() => copied(database)));
    streams.push(
      await speedOf(async () => {
        for await (const _ of (await capture.stream()).runs);
      }),
    );
    compares.push(await speedOf(() => compared(database, capture)));
    // Into the generation first: crossing a restart unwatched for seconds is a gap, and rightly.
    await writer.transaction({ rows: 1, kind: 'update' });
    await drain(capture);
    while ((await sizeOf(`${database}-wal`)) < (megabytes / 2) * 1e6) {
      await writer.transaction({ rows: SOME_ROWS, kind: 'update' });
    }
    walMB = (await sizeOf(`${database}-wal`)) / 1e6;
    const followStarted = performance.now();
    await drain(capture);
    follows.push(walMB / ((performance.now() - followStarted) / 1000));
    capture.close();
    await writer.checkpoint('TRUNCATE');
  }

  const replication = await Replication.start({ database, replica: join(folder, 'replica') });
  await replication.firstPut();
  const firstResident = peakResidentBytes(replication.pid);
  const before = cpuSeconds(replication.pid);
  await sleep(idleSeconds * 1000);
  const idle = (cpuSeconds(replication.pid) - before) / idleSeconds;
  for (let step = 0; step < 20; step++) {
    const put = replication.nextPut();
    await writer.transaction({ rows: MANY_ROWS, kind: 'update' });
    await put;
  }
  const resident = peakResidentBytes(replication.pid);
  await replication.stop();
  await writer.stop();

  console.log(
    `database of ${databaseMB.toFixed(0)} MB, WAL of ${walMB.toFixed(0)} MB, medians of ${rounds} runs\n`,
  );
  printTable(
    ['', 'found', 'aim'],
    [
      ['image, handed on while it is read, MB/s of database', median(streams).toFixed(0), '>= 500'],
      ['image, compared with the last state, MB/s of database', median(compares).toFixed(0), '>= 500'],
      ['image, kept as a copy on disk, MB/s of database', median(copies).toFixed(0), ''],
      ['following, MB/s of WAL', median(follows).toFixed(0), '>= 300'],
      ['idle, % of a core', (100 * idle).toFixed(2), '< 0.3'],
      ['resident after the first snapshot, MB', (firstResident / 1e6).toFixed(0), '<= 120'],
      ['resident after 20 large commits, MB', (resident / 1e6).toFixed(0), '<= 120'],
    ],
  );
} finally {
  await rm(folder, { recursive: true, force: true });
}
