/**
 * How fast the files of a whole replica are merged, in a folder and through NATS, and with how much memory.
 *
 *   node dist/scripts/bench/merge.js [MB of database, default 256]
 *
 * The replica holds a first file with the whole database and an hour of level 0, a file every six seconds with 200 pages
 * at random places. What is measured is one round of tidying, in a process of its own: levels 1 to 3, and
 * snapshots: one first, of as much as one merge takes, and one of the newest state. A rate is that of the pages of the database that the snapshots hold; the time of the levels has its own
 * line. Rates by the clock mean little while something else uses the machine.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DEFAULT_LEVELS, tidy } from '../../lib/jobs/tidy/tidy.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM } from '../../lib/ltx/header.js';
import { openReplica } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import { makeBucket } from '../../test/support/nats-replica.js';
import { startNatsServer } from '../../test/support/nats-server.js';
import { seededRandom } from '../../test/support/random.js';
import { peakResidentBytes, printTable } from './figures.js';

const PAGE_SIZE = 4096;
const POOL_PAGES = 2048;
const FILES = 600;
const SPACING_MS = 6000;
const CHANGED = 200;
const FIRST_MS = 1_767_225_600_000;

const random = seededRandom(20260111);

/** Pages half of hex text, half of repetition. */
function makePool(): Uint8Array {
  const pool = new Uint8Array(POOL_PAGES * PAGE_SIZE);
  for (let at = 0; at < pool.length; at++) {
    pool[at] = at % 64 < 32 ? (at * 7) & 0x3f : '0123456789abcdef'.charCodeAt(random.below(16));
  }
  return pool;
}

async function* encode(pool: Uint8Array, txid: number, pages: number, pgnos: Iterable<number>) {
  const encoder = new LtxEncoder({
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: PAGE_SIZE,
    commit: pages,
    minTxid: BigInt(txid),
    maxTxid: BigInt(txid),
    timestampMs: FIRST_MS + txid * SPACING_MS,
    preApplyChecksum: 0n,
    walOffset: 32,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  });
  for (const pgno of pgnos) {
    const at = ((pgno + txid) % POOL_PAGES) * PAGE_SIZE;
    encoder.writePage(pgno, pool.subarray(at, at + PAGE_SIZE));
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) yield block;
  }
  yield encoder.finish();
}

async function fill(replica: Replica, pages: number): Promise<void> {
  const pool = makePool();
  const all = (function* () {
    for (let pgno = 1; pgno <= pages; pgno++) yield pgno;
  })();
  for (let txid = 1; txid <= FILES; txid++) {
    const some = new Set(Array.from({ length: CHANGED }, () => 1 + random.below(pages)));
    const pgnos = txid === 1 ? all : [...some].sort((a, b) => a - b);
    const name = { level: 0, minTxid: BigInt(txid), maxTxid: BigInt(txid) };
    const timestampMs = FIRST_MS + txid * SPACING_MS;
    await replica.write({ ...name, timestampMs }, () => encode(pool, txid, pages, pgnos));
  }
}

interface Measured {
  readonly snapshotSeconds: number;
  readonly levelsSeconds: number;
  readonly residentBytes: number;
  readonly files: number;
}

/** In a process of its own: the work, measured, as a line of JSON. */
async function measureHere(url: string): Promise<void> {
  const replica = await openReplica(url, { env: {} });
  const started = performance.now();
  let lastAt = started;
  let snapshotSeconds = 0;
  const result = await tidy(replica, {
    settings: DEFAULT_LEVELS,
    retain: false,
    onEvent: (event) => {
      if (event.type !== 'merged') return;
      const now = performance.now();
      if (event.file.level === 9) snapshotSeconds += (now - lastAt) / 1000;
      lastAt = now;
    },
  });
  const ended = performance.now();
  await replica.close();
  const measured: Measured = {
    snapshotSeconds,
    levelsSeconds: (ended - started) / 1000 - snapshotSeconds,
    residentBytes: peakResidentBytes(process.pid),
    files: result.kind === 'done' ? result.merged.length : 0,
  };
  process.stdout.write(`${JSON.stringify(measured)}\n`);
}

async function measure(home: string, url: string, pages: number): Promise<string[]> {
  const replica = await openReplica(url, { env: {} });
  await fill(replica, pages);
  await replica.close();
  // The server, if there is one, is a child of this process: it must not be kept waiting.
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), 'measure', url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  for await (const part of child.stdout) text += part;
  const { snapshotSeconds, levelsSeconds, residentBytes, files } = JSON.parse(text) as Measured;
  return [
    home,
    ((2 * pages * PAGE_SIZE) / 1e6 / snapshotSeconds).toFixed(0),
    snapshotSeconds.toFixed(1),
    levelsSeconds.toFixed(1),
    String(files),
    (residentBytes / 1e6).toFixed(0),
  ];
}

async function main(megabytes: number): Promise<void> {
  const pages = Math.floor((megabytes * 1e6) / PAGE_SIZE);
  const endings: (() => Promise<void>)[] = [];
  const test = { after: (end: () => Promise<void>) => void endings.push(end), skip: () => {} };
  const folder = mkdtempSync(join(tmpdir(), 'jetlite-bench-'));
  const rows: string[][] = [];
  try {
    rows.push(await measure('folder', join(folder, 'replica'), pages));
    const server = await startNatsServer(test);
    if (server !== undefined) {
      await makeBucket(server);
      rows.push(await measure('NATS', `${server.url}/backups`, pages));
    }
  } finally {
    for (const end of endings.reverse()) await end();
    rmSync(folder, { recursive: true, force: true });
  }
  printTable([`${megabytes} MB`, 'MB/s', 'snapshot s', 'levels s', 'files', 'peak MB'], rows);
}

const [first = '256', url = ''] = process.argv.slice(2);
if (first === 'measure') await measureHere(url);
else await main(Number(first));
