/**
 * How fast a replica in a folder becomes a database again, and how fast that is verified, each with its memory.
 *
 *   node dist/scripts/bench/restore.js [MB of database, default 512]
 *
 * The database is written by the sqlite3 shell: text, hex keys with an index, blobs with runs of zeros; backed up whole,
 * then changed in 50 small commits that are backed up one by one. Each measurement runs in a process of its own. The
 * plain copy beside it shows what the disk and the page cache give.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backup } from '../../lib/jobs/backup.js';
import { restore } from '../../lib/jobs/restore.js';
import { verify } from '../../lib/jobs/verify.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { peerPath } from '../../test/support/peers.js';
import { median, peakResidentBytes, printTable } from './figures.js';

const ROUNDS = 3;
const COMMITS = 50;
const ROW_BYTES = 330;

type Work = 'restore' | 'verify';

interface Measured {
  readonly seconds: number;
  readonly residentBytes: number;
}

/** In a process of its own: one piece of work, measured, as a line of JSON. */
async function measureHere(work: Work, replicaFolder: string, output: string): Promise<void> {
  const replica = await openFileReplica(replicaFolder);
  const start = performance.now();
  if (work === 'restore') await restore({ replica, output, force: true });
  else if (!(await verify({ replica })).sound) throw new Error('the replica is not sound');
  const seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify({ seconds, residentBytes: peakResidentBytes(process.pid) }));
}

function measure(work: Work, replicaFolder: string, output: string): Measured {
  const script = fileURLToPath(import.meta.url);
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, work, replicaFolder, output], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${work} failed: ${stderr}`);
  return JSON.parse(stdout) as Measured;
}

async function makeReplica(
  shell: string,
  database: string,
  replicaFolder: string,
  megabytes: number,
): Promise<void> {
  const rows = Math.round((megabytes * 1e6) / ROW_BYTES);
  execFileSync(shell, [
    database,
    `PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
     CREATE TABLE t(id INTEGER PRIMARY KEY, key TEXT, blob BLOB, words TEXT); CREATE INDEX keys ON t(key);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
     INSERT INTO t SELECT i, hex(randomblob(8)), randomblob(60) || zeroblob(100),
       'the quick brown fox number ' || i || ' jumps over the lazy dog ' || (i * 7919 % 1000003) FROM n;
     PRAGMA wal_checkpoint(TRUNCATE);`,
  ]);
  const replica = await openFileReplica(replicaFolder);
  for (let i = 0; i <= COMMITS; i++) {
    if (i > 0)
      execFileSync(shell, [
        database,
        `UPDATE t SET key = hex(randomblob(8)) WHERE id % ${COMMITS} = ${i} AND id < 5000`,
      ]);
    await backup({ database, replica });
  }
}

async function compare(megabytes: number): Promise<void> {
  const shell = peerPath('sqlite3');
  if (shell === undefined) throw new Error('this benchmark needs the sqlite3 shell');
  const folder = mkdtempSync(join(tmpdir(), 'jetlite-bench-'));
  try {
    const database = join(folder, 'a.db');
    const replicaFolder = join(folder, 'replica');
    const output = join(folder, 'restored.db');
    await makeReplica(shell, database, replicaFolder, megabytes);
    const { size } = statSync(database);
    const rows = (['restore', 'verify'] as const).map((work) => {
      const rounds = Array.from({ length: ROUNDS }, () => measure(work, replicaFolder, output));
      const seconds = median(rounds.map((round) => round.seconds));
      const resident = Math.max(...rounds.map((round) => round.residentBytes));
      return [work, seconds.toFixed(2), (size / 1e6 / seconds).toFixed(0), (resident / 1e6).toFixed(0)];
    });
    const start = performance.now();
    copyFileSync(database, output);
    const seconds = (performance.now() - start) / 1000;
    rows.push(['copy of the file', seconds.toFixed(2), (size / 1e6 / seconds).toFixed(0), '']);
    console.log(`a database of ${(size / 1e6).toFixed(0)} MB, a snapshot and ${COMMITS} increments`);
    printTable(['', 's', 'MB/s', 'MB resident'], rows);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const [work, replicaFolder, output] = process.argv.slice(2);
if (work === 'restore' || work === 'verify') await measureHere(work, replicaFolder, output);
else await compare(Number(work ?? 512));
