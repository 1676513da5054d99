/** Capture takes no lock, opens nothing for writing, and the application cannot tell that it is there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage } from '../../support/capture-stage.js';
import type { WriterOptions } from '../../support/oracle/writer.js';
import { peer } from '../../support/peers.js';
import { scratchFolder } from '../../support/scratch.js';
import { readTrace, WATCHED_CALLS } from '../../support/strace.js';

for (const [when, options] of [
  ['while the application closes and reopens', { reopenEverySeconds: 0.4 }],
  ['in rollback mode', { journalMode: 'delete' }],
  ['while the journal mode changes', { journalModes: ['wal', 'persist'], journalModeEverySeconds: 0.3 }],
] as const satisfies [string, WriterOptions][]) {
  test(`not one lock call and no file opened for writing, ${when}`, async (t) => {
    const strace = peer(t, 'strace');
    const stage = await CaptureStage.open(t);
    if (!strace || !stage) return;
    const trace = join(stage.folder, 'trace');
    const writer = await stage.writer({ rate: 300, checkpointEvery: 50, ...options });
    // Calls that libuv hands to an io_uring would not be seen.
    const through = [strace, '-f', '-y', '-qq', '-o', trace, '-e', `trace=${WATCHED_CALLS}`];
    const replication = await stage.replicate({}, through, { UV_USE_IO_URING: '0' });
    await replication.firstPut();
    await sleep(1500);
    const report = await writer.stop();
    await replication.stop();
    const { readOpens, locks, writes, rings } = readTrace(
      trace,
      ['', '-wal', '-shm', '-journal'].map((suffix) => stage.database + suffix),
    );
    assert.ok(readOpens > 0, 'the trace shows how the files were opened');
    assert.deepEqual(locks, []);
    assert.deepEqual(writes, []);
    assert.deepEqual(rings, []);
    assert.equal(report.busy, 0);
    const proof = await stage.prove();
    t.diagnostic(`${report.commits} commits, ${proof.proven} of ${proof.txids} TXIDs proven`);
  });
}

test('the same look at an ordinary reader of the database finds its locks and its writable opens', async (t) => {
  const strace = peer(t, 'strace');
  const python3 = peer(t, 'python3');
  if (!strace || !python3) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'app.db');
  const trace = join(folder, 'trace');
  const reader = `import sqlite3, sys
c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode = wal'); c.execute('CREATE TABLE t(x)')
c.execute('SELECT * FROM t').fetchall()`;
  const run = spawnSync(strace, [
    ...['-f', '-y', '-qq', '-o', trace, '-e', `trace=${WATCHED_CALLS}`],
    ...[python3, '-c', reader, database],
  ]);
  assert.equal(run.status, 0, run.stderr.toString());
  const { locks, writes } = readTrace(trace, [database, `${database}-wal`, `${database}-shm`]);
  assert.ok(locks.some((line) => line.includes(`${database}-shm`)));
  for (const file of [database, `${database}-wal`, `${database}-shm`]) {
    assert.ok(
      writes.some((line) => line.includes(`"${file}"`) && line.includes('O_RDWR')),
      file,
    );
  }
  assert.ok(writes.some((line) => line.includes('mmap')));
});

test('the writer meets no SQLITE_BUSY, and its WAL grows no further than without Jetlite', async (t) => {
  // The same commits twice: where the WAL restarts, and so how large it gets, depends on readers alone.
  const work: WriterOptions = {
    seed: 5,
    commits: 8000,
    sizes: [
      [50, 1, 1],
      [1, 50, 400],
    ],
  };
  const sizes: number[] = [];
  for (const beside of [false, true]) {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const writer = await stage.writer({ ...work, paused: true });
    const replication = beside ? await stage.replicate() : undefined;
    await replication?.firstPut();
    await writer.resume();
    const report = await writer.report();
    await replication?.stop();
    if (replication) await stage.prove();
    assert.equal(report.busy, 0);
    assert.ok((await stat(stage.database)).size > 0);
    sizes.push(report.largestWalBytes);
  }
  t.diagnostic(`largest WAL: ${sizes[0]} bytes alone, ${sizes[1]} bytes beside Jetlite`);
  assert.ok(sizes[0]! > 1_000_000);
  assert.equal(sizes[1], sizes[0]);
});
