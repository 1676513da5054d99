/**
 * How fast LTX files are written, read and merged, and with how much memory, on one core.
 *
 * node dist/scripts/bench/ltx.js [MB of database, default 256] [FILE: a database to take the pages from]
 *
 * Without a file the database is made up: b-tree leaves of rows with text, hex keys and blobs. Each measurement
 * runs in a process of its own, so that its memory is its own; files are read from the temporary folder. The
 * first rate is by the clock, and means little while something else uses the machine; the second is by the
 * processor time spent.
 */

import { execFileSync } from 'node:child_process';
import { closeSync, createReadStream, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Crc64 } from '../../lib/ltx/crc64.js';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM, type LtxHeader } from '../../lib/ltx/header.js';
import { lz4Bound, lz4Compress, lz4Decompress } from '../../lib/ltx/lz4.js';
import { mergeLtx } from '../../lib/ltx/merge.js';

const PAGE_SIZE = 4096;
const POOL_PAGES = 8192;
const INCREMENTS = 4;
const ROUNDS = 5;

interface Measured {
  readonly bytes: number;
  readonly note: string;
}

interface Result extends Measured {
  readonly seconds: number;
  /** Of all threads, those that read files and collect garbage too. */
  readonly cpuSeconds: number;
}

function wordsOfText(next: () => number): string[] {
  const words: string[] = [];
  for (let i = 0; i < 2000; i++) {
    let word = '';
    for (let letters = 2 + (next() % 8); letters > 0; letters--) word += 'etaoinshrdlucmfw'[next() % 16];
    words.push(word);
  }
  return words;
}

/** A seeded generator of unsigned words (xorshift). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/**
 * Leaves filled from the end with rows of an id, a hex key, a state, words (common ones more often, as in any
 * text) and, in one row of eight, a blob of noise.
 */
function makePool(): Uint8Array {
  const pool = new Uint8Array(POOL_PAGES * PAGE_SIZE);
  const next = generator(20260111);
  const words = wordsOfText(next);
  const encoder = new TextEncoder();
  for (let pgno = 0; pgno < POOL_PAGES; pgno++) {
    const page = pool.subarray(pgno * PAGE_SIZE, (pgno + 1) * PAGE_SIZE);
    page[0] = 13;
    let end = PAGE_SIZE;
    let cells = 0;
    for (;;) {
      const key = next().toString(16).padStart(8, '0') + next().toString(16).padStart(8, '0');
      let text = ['created', 'delivered', 'waiting for payment'][next() % 3];
      for (let i = 8 + (next() % 24); i > 0; i--)
        text += ` ${words[Math.floor(words.length * (next() / 2 ** 32) ** 3)]}`;
      const row = encoder.encode(`\x82\x01\x05\x81${key}2026-01-11T08:00:${10 + (next() % 50)}Z${text}`);
      const blob = next() % 8 === 0 ? 64 + (next() % 256) : 0;
      if (end - row.length - blob < 8 + 2 * cells + 2) break;
      for (let i = 0; i < blob; i++) page[end - 1 - i] = next() >>> 11;
      end -= row.length + blob;
      page.set(row, end);
      page[8 + 2 * cells] = end >>> 8;
      page[9 + 2 * cells] = end & 0xff;
      cells++;
    }
    page[4] = cells;
  }
  return pool;
}

function loadPool(file: string | undefined): Uint8Array {
  if (file === undefined) return makePool();
  const pool = new Uint8Array(POOL_PAGES * PAGE_SIZE);
  const fd = openSync(file, 'r');
  const length = readSync(fd, pool);
  closeSync(fd);
  return pool.subarray(0, length - (length % PAGE_SIZE));
}

function headerOf(pages: number, txid: bigint): LtxHeader {
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: PAGE_SIZE,
    commit: pages,
    minTxid: txid,
    maxTxid: txid,
    timestampMs: 1_767_225_600_000,
    preApplyChecksum: 0n,
    walOffset: 32,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
}

function encodeFile(
  pool: Uint8Array,
  pages: number,
  txid: bigint,
  every: number,
  sink: (block: Uint8Array) => void,
) {
  const encoder = new LtxEncoder(headerOf(pages, txid));
  const inPool = pool.length / PAGE_SIZE;
  for (let pgno = 1; pgno <= pages; pgno += every) {
    // The lock page of a database above 1 GiB.
    if ((pgno - 1) * PAGE_SIZE === 0x40000000) continue;
    const at = (pgno % inPool) * PAGE_SIZE;
    encoder.writePage(pgno, pool.subarray(at, at + PAGE_SIZE));
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) sink(block);
  }
  sink(encoder.finish());
  return encoder.bytesOut;
}

/** The best of several rounds: the first warm up, and other work on the machine only ever slows one down. */
async function timed(round: () => Measured | Promise<Measured>): Promise<Result> {
  let best: Result | undefined;
  for (let i = 0; i < ROUNDS; i++) {
    const start = process.hrtime.bigint();
    const cpuStart = process.cpuUsage();
    const { bytes, note } = await round();
    const cpu = process.cpuUsage(cpuStart);
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    const cpuSeconds = (cpu.user + cpu.system) / 1e6;
    if (best === undefined || cpuSeconds < best.cpuSeconds) best = { bytes, seconds, cpuSeconds, note };
  }
  return best!;
}

function read(file: string) {
  return createReadStream(file, { highWaterMark: 256 * 1024 });
}

const MEASUREMENTS: Record<
  string,
  (pages: number, pool: () => Uint8Array, folder: string) => Result | Promise<Result>
> = {
  crc64(_pages, makePages) {
    const pool = makePages();
    return timed(() => {
      const crc = new Crc64();
      for (let at = 0; at < pool.length; at += PAGE_SIZE) crc.update(pool, at, PAGE_SIZE);
      return { bytes: pool.length, note: crc.value().toString(16) };
    });
  },
  'lz4 compress'(_pages, makePages) {
    const pool = makePages();
    const out = new Uint8Array(lz4Bound(PAGE_SIZE));
    return timed(() => {
      let size = 0;
      for (let at = 0; at < pool.length; at += PAGE_SIZE) {
        size += lz4Compress(pool.subarray(at, at + PAGE_SIZE), out, 0);
      }
      return { bytes: pool.length, note: `ratio ${(size / pool.length).toFixed(3)}` };
    });
  },
  'lz4 decompress'(_pages, makePages) {
    const pool = makePages();
    const out = new Uint8Array(pool.length + (pool.length / PAGE_SIZE) * 64);
    const ends: number[] = [];
    let end = 0;
    for (let at = 0; at < pool.length; at += PAGE_SIZE) {
      end += lz4Compress(pool.subarray(at, at + PAGE_SIZE), out, end);
      ends.push(end);
    }
    const page = new Uint8Array(PAGE_SIZE);
    return timed(() => {
      let from = 0;
      for (const to of ends) {
        if (lz4Decompress(out, from, to, page) !== PAGE_SIZE) throw new Error('wrong size');
        from = to;
      }
      return { bytes: pool.length, note: '' };
    });
  },
  encode(pages, makePages) {
    const pool = makePages();
    return timed(() => {
      const size = encodeFile(pool, pages, 1n, 1, () => {});
      return { bytes: pages * PAGE_SIZE, note: `ratio ${(size / pages / PAGE_SIZE).toFixed(3)}` };
    });
  },
  'decode + apply'(_pages, _pool, folder) {
    // Pages are gathered as a restore gathers them before a write.
    const applied = new Uint8Array(1024 * PAGE_SIZE);
    return timed(async () => {
      const summary = await decodeLtx('snapshot', read(join(folder, '1')), {
        page: (pgno, page) => applied.set(page, (pgno % 1024) * PAGE_SIZE),
      });
      return { bytes: summary.pageCount * PAGE_SIZE, note: `file of ${(summary.bytes / 1e6).toFixed(0)} MB` };
    });
  },
  'merge, of database'(pages, _pool, folder) {
    return timed(async () => {
      const size = await mergeFiles(folder);
      const note = `snapshot and ${INCREMENTS} files of every fifth page, into ${(size / 1e6).toFixed(0)} MB`;
      return { bytes: pages * PAGE_SIZE, note };
    });
  },
  'merge, of pages read'(pages, _pool, folder) {
    return timed(async () => {
      await mergeFiles(folder);
      return {
        bytes: pages * PAGE_SIZE * (1 + INCREMENTS / 5),
        note: 'the same, all versions of a page counted',
      };
    });
  },
};

async function mergeFiles(folder: string): Promise<number> {
  const inputs = [];
  for (let txid = 1; txid <= 1 + INCREMENTS; txid++) {
    inputs.push({ name: `${txid}`, source: read(join(folder, `${txid}`)) });
  }
  let size = 0;
  for await (const block of mergeLtx(inputs)) size += block.length;
  return size;
}

function makeFiles(folder: string, pool: Uint8Array, pages: number): void {
  for (let txid = 1; txid <= 1 + INCREMENTS; txid++) {
    const fd = openSync(join(folder, `${txid}`), 'w');
    encodeFile(pool, pages, BigInt(txid), txid === 1 ? 1 : 5, (block) => writeSync(fd, block));
    closeSync(fd);
  }
}

async function main(args: string[]): Promise<void> {
  const [size = '256', database = '', only, folder = ''] = args;
  const pages = Math.floor((Number(size) * 1e6) / PAGE_SIZE);
  const pool = () => loadPool(database === '' ? undefined : database);
  if (only !== undefined) {
    const result = await MEASUREMENTS[only](pages, pool, folder);
    console.log(JSON.stringify({ ...result, memory: process.resourceUsage().maxRSS / 1024 }));
    return;
  }
  const scratch = mkdtempSync(join(tmpdir(), 'jetlite-bench-'));
  try {
    makeFiles(scratch, pool(), pages);
    const columns = ['MB/s', 'MB/CPU-s', 'peak MB'].map((column) => column.padStart(10)).join('');
    console.log(`${'measurement'.padEnd(22)}${columns}  (${size} MB, pages of ${PAGE_SIZE})`);
    for (const name of Object.keys(MEASUREMENTS)) {
      const script = fileURLToPath(import.meta.url);
      const line = execFileSync(process.execPath, [script, size, database, name, scratch], {
        encoding: 'utf8',
      });
      const { bytes, seconds, cpuSeconds, note, memory } = JSON.parse(line);
      const figures = [bytes / 1e6 / seconds, bytes / 1e6 / cpuSeconds, memory];
      console.log(
        `${name.padEnd(22)}${figures.map((figure) => figure.toFixed(0).padStart(10)).join('')}  ${note}`,
      );
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

await main(process.argv.slice(2));
