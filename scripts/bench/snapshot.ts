/**
 * A snapshot read from the live database while an application writes and the replicator goes on: how long it takes, what
 * memory the replicator has used at most, and how far its puts are apart meanwhile.
 *
 *     node dist/scripts/bench/snapshot.js [--megabytes 1000] [--rate 200]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../test/support/application.js';
import { Replication } from '../../test/support/replication.js';
import { numberOption, peakResidentBytes, printTable } from './figures.js';

const megabytes = numberOption('megabytes', 1000);
const rate = numberOption('rate', 200);
const ROWS_A_MEGABYTE = 256;

const folder = await mkdtemp(join(tmpdir(), 'jetlite-bench-'));
const closing: (() => Promise<void>)[] = [];
const stage = { skip: () => {}, after: (done: () => Promise<void>) => void closing.push(done) };
try {
  const database = join(folder, 'source.db');
  const application = Application.start(stage, database)!;
  await application.open({ pragmas: ['journal_mode=WAL', 'synchronous=NORMAL'] });
  await application.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)');
  for (let made = 0; made < megabytes; made += 50) {
    const rows = Math.min(50, megabytes - made) * ROWS_A_MEGABYTE;
    await application.run(
      `WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows}) ` +
        "INSERT INTO t(x) SELECT CAST(printf('%.*c', 2000, 'x') AS BLOB) || randomblob(1900) FROM n",
    );
  }
  const rows = megabytes * ROWS_A_MEGABYTE;

  const replication = await Replication.start({
    database,
    replica: join(folder, 'replica'),
    levels: { levelIntervalsMs: [8000], snapshotIntervalMs: 3_600_000 },
  });
  closing.push(() => replication.kill());
  await replication.firstPut();
  const first = peakResidentBytes(replication.pid);
  const puts: number[] = [];
  const seen = new Set(replication.events);
  let snapshotAt = 0;
  let spoilt = false;
  const startedAt = performance.now();
  for (let commits = 0; snapshotAt === 0 && !spoilt; commits++) {
    await application.run(
      `UPDATE t SET x = randomblob(3900) WHERE id = ${1 + Math.floor(Math.random() * rows)}`,
    );
    for (const event of replication.events) {
      if (seen.has(event)) continue;
      seen.add(event);
      if (event.type === 'put') puts.push(performance.now());
      if (event.type === 'snapshot') snapshotAt = performance.now();
      if (event.type === 'merged') spoilt = true;
    }
    const due = startedAt + (commits * 1000) / rate - performance.now();
    if (due > 0) await sleep(due);
  }
  const apart = puts
    .slice(1)
    .map((at, i) => at - puts[i]!)
    .sort((a, b) => a - b);
  const at = (share: number): string => `${apart[Math.floor(apart.length * share)]?.toFixed(0) ?? '-'} ms`;
  printTable(
    [
      'snapshot',
      'from the live files',
      'done after',
      'puts apart p50',
      'p99',
      'at most',
      'memory before',
      'at most',
    ],
    [
      [
        `${megabytes} MB, ${rate} commits/s`,
        spoilt ? 'no' : 'yes',
        `${((performance.now() - startedAt) / 1000).toFixed(1)} s`,
        at(0.5),
        at(0.99),
        at(0.9999),
        `${(first / 1e6).toFixed(0)} MB`,
        `${(peakResidentBytes(replication.pid) / 1e6).toFixed(0)} MB`,
      ],
    ],
  );
  await replication.kill();
} finally {
  for (const close of closing.reverse()) await close();
  await rm(folder, { recursive: true });
}
