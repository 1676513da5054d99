/** LTX files exchanged with the real Litestream, both ways. */

import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { formatTxid, ltxFileName } from '../../lib/ltx/header.js';
import { mergeLtx } from '../../lib/ltx/merge.js';
import { realLitestream } from '../support/litestream.js';
import { type Random, randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { AppliedDatabase, type ChainFile, filesOfLevel } from './chains.js';
import { frameFile, lz4Frame } from './frames.js';
import { encodeFile, makeHeader, makePage, PAGE_SIZES, type Pages } from './pages.js';

test('every file that Litestream replicates is read, and leads to what Litestream restores', async (t) => {
  const litestream = realLitestream(t);
  const sqlite = litestream && sqliteShell(t);
  if (!litestream || !sqlite) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'source.db');
  const replica = join(folder, 'replica');
  await sqlite.run(
    database,
    'PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, body, noise);',
  );
  const replication = await litestream.replicate(database, replica, { snapshotInterval: '2s' });
  for (let step = 0; step < 8; step++) {
    await sqlite.run(
      database,
      `.timeout 10000
       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
       INSERT INTO t (body, noise) SELECT 'row ' || i || ' of step ${step}', randomblob(i * 9) FROM n;
       UPDATE t SET body = zeroblob(3000) WHERE id % 50 = ${step};
       ${step === 5 ? 'DELETE FROM t WHERE id % 4 <> 0; VACUUM;' : ''}`,
    );
    await delay(500);
  }
  await replication.says('compaction complete');
  await replication.stop();

  const ltx = join(replica, 'ltx');
  const states = new Map<bigint, Buffer>();
  const byLevel0 = new AppliedDatabase();
  for (const file of filesOfLevel(ltx, 0)) {
    await byLevel0.apply(file);
    states.set(file.maxTxid, Buffer.from(byLevel0.bytes));
    const restored = join(folder, `${formatTxid(file.maxTxid)}.db`);
    await litestream.restore(replica, restored, { txid: formatTxid(file.maxTxid) });
    assert.ok(readFileSync(restored).equals(byLevel0.bytes), `TXID ${file.maxTxid}`);
  }
  const levels = readdirSync(ltx).map(Number);
  assert.ok(states.size >= 4 && levels.includes(1) && levels.includes(9), `${levels}`);
  for (const level of levels.filter((level) => level > 0)) {
    let applied = new AppliedDatabase();
    for (const file of filesOfLevel(ltx, level)) {
      if (file.minTxid === 1n) applied = new AppliedDatabase();
      await applied.apply(file);
      assert.ok(states.get(file.maxTxid)?.equals(applied.bytes), file.path);
    }
  }
});

/** A folder replica written by hand: what Litestream must make of it is known. */
class WrittenReplica {
  readonly folder: string;
  /** The database after each TXID. */
  readonly states: Buffer[] = [Buffer.alloc(0)];
  readonly #pageSize: number;

  constructor(folder: string, pageSize: number) {
    this.folder = folder;
    this.#pageSize = pageSize;
  }

  /** Writes the next TXID to level 0. */
  add(commit: number, pages: Pages, asFrames = false): void {
    const txid = BigInt(this.states.length);
    const timestampMs = 1_767_225_600_000 + 1000 * Number(txid);
    const header = makeHeader({
      pageSize: this.#pageSize,
      commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs,
    });
    this.put(
      0,
      txid,
      txid,
      timestampMs,
      asFrames ? frameFile(header, pages, (page) => lz4Frame(page)) : encodeFile(header, pages),
    );
    const state = Buffer.alloc(commit * this.#pageSize);
    this.states[this.states.length - 1].copy(state);
    for (const [pgno, page] of pages) state.set(page, (pgno - 1) * this.#pageSize);
    this.states.push(state);
  }

  put(level: number, minTxid: bigint, maxTxid: bigint, timestampMs: number, file: Uint8Array): void {
    const folder = join(this.folder, 'ltx', `${level}`);
    mkdirSync(folder, { recursive: true });
    const path = join(folder, ltxFileName(minTxid, maxTxid));
    writeFileSync(path, file);
    utimesSync(path, timestampMs / 1000, timestampMs / 1000);
  }

  level0(): ChainFile[] {
    return filesOfLevel(join(this.folder, 'ltx'), 0);
  }
}

/** Pages of a database that grows, shrinks and changes; page 1 is changed every time, as SQLite does. */
function makeChanges(
  replica: WrittenReplica,
  pageSize: number,
  steps: number,
  random: Random,
  asFrames = false,
): void {
  let before = 0;
  for (let step = 0; step < steps; step++) {
    const commit = 2 + random.below(8);
    const pages: Pages = new Map();
    for (let pgno = 1; pgno <= commit; pgno++) {
      if (pgno === 1 || pgno > before || random.oneIn(3)) pages.set(pgno, makePage(pageSize, random));
    }
    replica.add(commit, pages, asFrames);
    before = commit;
  }
}

test('Litestream restores what the encoder writes: every page size, every TXID', async (t) => {
  const litestream = realLitestream(t);
  if (!litestream) return;
  const random = randomSource(t);
  for (const pageSize of PAGE_SIZES) {
    const folder = await scratchFolder(t);
    const replica = new WrittenReplica(join(folder, 'replica'), pageSize);
    makeChanges(replica, pageSize, 3, random);
    for (let txid = 1; txid < replica.states.length; txid++) {
      const restored = join(folder, `${txid}.db`);
      await litestream.restore(replica.folder, restored, { txid: formatTxid(BigInt(txid)) });
      assert.ok(readFileSync(restored).equals(replica.states[txid]), `page size ${pageSize}, TXID ${txid}`);
    }
  }
});

test('Litestream restores through merged files, of blocks and of frames', async (t) => {
  const litestream = realLitestream(t);
  if (!litestream) return;
  const random = randomSource(t);
  for (const asFrames of [false, true]) {
    const folder = await scratchFolder(t);
    const replica = new WrittenReplica(join(folder, 'replica'), 4096);
    makeChanges(replica, 4096, 7, random, asFrames);
    const files = replica.level0();
    const merged = new WrittenReplica(join(folder, 'merged'), 4096);
    for (const [level, min, max] of [
      [9, 1, 3],
      [1, 4, 5],
      [1, 6, 7],
    ]) {
      const blocks: Uint8Array[] = [];
      const inputs = files
        .slice(min - 1, max)
        .map(({ path }) => ({ name: path, source: [readFileSync(path)] }));
      for await (const block of mergeLtx(inputs)) blocks.push(block);
      merged.put(level, BigInt(min), BigInt(max), 1_767_225_600_000 + 1000 * max, Buffer.concat(blocks));
    }
    for (const txid of [3, 5, 7]) {
      const restored = join(folder, `${txid}.db`);
      await litestream.restore(merged.folder, restored, { txid: formatTxid(BigInt(txid)) });
      assert.ok(readFileSync(restored).equals(replica.states[txid]), `TXID ${txid}`);
    }
  }
});
