/** The spool by itself: what a later process believes of what it finds, and how much of the disk it takes. */

import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Appended, Spool, type SpoolOptions } from '../../../lib/jobs/session/spool.js';
import { randomSource } from '../../support/random.js';
import { scratchFolder } from '../../support/scratch.js';

const POINT = { database: { dev: 1n, ino: 2n }, wal: undefined, quiet: undefined };
const MIB = 1024 * 1024;

/** Stands for an LTX file: some bytes, and the checksum at their end. */
function fileOf(txid: bigint, size = 500, chain = 7n): Uint8Array {
  const bytes = Buffer.alloc(size, Number(txid % 251n));
  bytes.writeBigUInt64BE(checksumOf(txid, chain), size - 8);
  return bytes;
}

function checksumOf(txid: bigint, chain = 7n): bigint {
  return (chain << 32n) + txid;
}

async function open(folder: string, options: Partial<SpoolOptions> = {}, t?: TestContext): Promise<Spool> {
  const spool = await Spool.open(folder, {
    maxBytes: 100 * MIB,
    keepBytes: 0,
    onTrouble: (message) => assert.fail(message),
    ...options,
  });
  t?.after(() => spool.close());
  return spool;
}

function append(spool: Spool, txid: bigint, size = 500, chain = 7n): Promise<Appended> {
  const entry = {
    txid,
    previousChecksum: checksumOf(txid - 1n, chain),
    timestampMs: 1000 + Number(txid),
    commits: 1,
    pages: 2,
  };
  const bytes = fileOf(txid, size, chain);
  return spool.append(entry, POINT, [bytes.subarray(0, 100), bytes.subarray(100)]);
}

async function contentOf(spool: Spool, txid: bigint): Promise<Buffer | undefined> {
  const found = await spool.read(txid);
  if (found === undefined) return undefined;
  const parts: Uint8Array[] = [];
  for await (const part of found.content()) parts.push(part.slice());
  return Buffer.concat(parts);
}

async function bytesIn(folder: string): Promise<number> {
  let sum = 0;
  for (const name of await readdir(folder)) sum += (await stat(join(folder, name))).size;
  return sum;
}

/** Files of TXID 5 to 4 + `count`, written and left by a process that was killed. */
async function leftBehind(folder: string, count: number): Promise<void> {
  const spool = await open(folder);
  for (let txid = 5n; txid < 5n + BigInt(count); txid++) assert.equal(await append(spool, txid), 'written');
  await spool.close();
}

test('what follows the newest file of the replica is taken up, with bytes, time and point; nothing else is', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  await leftBehind(folder, 6);
  const spool = await open(folder, {}, t);
  assert.deepEqual(await spool.takeUp(4n, checksumOf(4n)), { lastTxid: 10n, forgotten: 0n });
  for (let txid = 5n; txid <= 10n; txid++) assert.deepEqual(await contentOf(spool, txid), fileOf(txid));
  assert.deepEqual(await contentOf(spool, 5n), fileOf(5n), 'again, and backwards');
  assert.equal(await spool.read(11n), undefined);
  const { timestampMs, point, fileChecksum } = (await spool.read(7n))!;
  assert.deepEqual([timestampMs, fileChecksum, point], [1007, checksumOf(7n), { database: POINT.database }]);
  assert.equal(await append(spool, 11n), 'written');

  // Some of them were put by then.
  const third = await open(folder, {}, t);
  assert.deepEqual(await third.takeUp(8n, checksumOf(8n)), { lastTxid: 11n, forgotten: 0n });
  assert.deepEqual(await contentOf(third, 11n), fileOf(11n));

  const strangers: [string, bigint, bigint][] = [
    ['another file stands under the TXID before the first', 4n, checksumOf(4n, 8n)],
    ['another one in the middle', 8n, checksumOf(8n, 8n)],
    ['another writer got farther', 12n, checksumOf(12n, 8n)],
    ['the replica is empty', 0n, 0n],
    ['the replica has lost its end', 3n, checksumOf(3n)],
  ];
  for (const [why, txid, checksum] of strangers) {
    const copy = join(await scratchFolder(t), 'spool');
    await mkdir(copy);
    for (const name of await readdir(folder)) await copyFile(join(folder, name), join(copy, name));
    const stranger = await open(copy, {}, t);
    assert.deepEqual(await stranger.takeUp(txid, checksum), { lastTxid: txid, forgotten: 7n }, why);
    assert.deepEqual(await readdir(copy), [], why);
  }
});

test('of a segment that was torn or changed at any byte, only what is whole before it is believed', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  await leftBehind(folder, 5);
  const [name] = await readdir(folder);
  const whole = await readFile(join(folder, name));
  const recordSize = whole.length / 5;
  const random = randomSource(t);
  const places = Array.from({ length: 60 }, () => random.below(whole.length));
  for (const at of [0, recordSize - 1, recordSize, whole.length - 1, ...places]) {
    const changed = Buffer.from(whole);
    changed[at] ^= 1 << (at % 8);
    for (const bytes of [changed, whole.subarray(0, at)]) {
      const other = join(await scratchFolder(t), 'spool');
      await mkdir(other);
      await writeFile(join(other, name), bytes);
      await writeFile(join(other, 'notes.txt'), 'not ours');
      const spool = await open(other, {}, t);
      const { lastTxid } = await spool.takeUp(4n, checksumOf(4n));
      assert.equal(lastTxid, 4n + BigInt(Math.floor(at / recordSize)), `byte ${at} of ${bytes.length}`);
      for (let txid = 5n; txid <= lastTxid; txid++)
        assert.deepEqual(await contentOf(spool, txid), fileOf(txid));
      assert.equal(await append(spool, lastTxid + 1n), 'written', 'and it goes on from there');
      assert.deepEqual(await contentOf(spool, lastTxid + 1n), fileOf(lastTxid + 1n));
      assert.ok((await readdir(other)).includes('notes.txt'));
    }
  }
});

test('what was put already is no cause for alarm where the last file put was not kept', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  await leftBehind(folder, 3);
  const spool = await open(folder, {}, t);
  assert.deepEqual(await spool.takeUp(8n, checksumOf(8n), true), { lastTxid: 8n, forgotten: 0n });
  assert.deepEqual(await contentOf(spool, 7n), fileOf(7n));
  assert.equal(await append(spool, 9n), 'written');
});

test('a file that was damaged after it was written is not given', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  const spool = await open(folder, {}, t);
  for (const txid of [5n, 6n, 7n]) await append(spool, txid);
  const [name] = await readdir(folder);
  const bytes = await readFile(join(folder, name));
  bytes[Math.floor(bytes.length / 2)] ^= 1;
  await writeFile(join(folder, name), bytes);
  assert.deepEqual(await contentOf(spool, 5n), fileOf(5n));
  assert.equal(await spool.read(6n), undefined);
});

test('what the replica has goes when it takes more room than it may; what it has not got stays', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  const keepBytes = 20 * MIB;
  const spool = await open(folder, { keepBytes });
  for (let txid = 1n; txid <= 60n; txid++) {
    await append(spool, txid, MIB);
    spool.release(txid);
  }
  assert.deepEqual(await contentOf(spool, 60n), fileOf(60n, MIB), 'the latest are kept');
  assert.equal(await spool.read(1n), undefined);
  assert.ok((await bytesIn(folder)) <= keepBytes + 9 * MIB, `${await bytesIn(folder)} bytes`);
  for (let txid = 61n; txid <= 100n; txid++) await append(spool, txid, MIB);
  for (let txid = 61n; txid <= 100n; txid++) assert.ok(await spool.read(txid), `TXID ${txid}`);
  await spool.close();
  assert.ok((await readdir(folder)).length > 0);
  const next = await open(folder, { keepBytes });
  assert.deepEqual(await next.takeUp(60n, checksumOf(60n)), { lastTxid: 100n, forgotten: 0n });
  next.release(100n);
  await next.close();
  assert.deepEqual(await readdir(folder), [], 'nothing is left where nothing waits');
});

test('beyond its limit nothing more is taken, and nothing is left of what was not', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  const spool = await open(folder, { maxBytes: MIB }, t);
  let txid = 1n;
  while ((await append(spool, txid, 100_000)) === 'written') txid++;
  assert.equal(await append(spool, txid, 100_000), 'full');
  assert.equal(spool.lastTxid, txid - 1n);
  assert.ok((await bytesIn(folder)) <= MIB);
  const next = await open(folder, { maxBytes: MIB }, t);
  assert.equal((await next.takeUp(0n, checksumOf(0n))).lastTxid, txid - 1n);
  next.release(txid - 1n);
  assert.equal(await append(next, txid, 100_000), 'written', 'there is room again');
});

test('a folder that cannot be written is told once, and again after it could', async (t) => {
  const folder = join(await scratchFolder(t), 'spool');
  await writeFile(folder, 'a file stands there');
  const told: string[] = [];
  const spool = await open(folder, { onTrouble: (message) => told.push(message) }, t);
  assert.equal(await append(spool, 1n), 'failed');
  assert.equal(await append(spool, 1n), 'failed');
  assert.equal(told.length, 1);
  assert.match(told[0], /spool cannot be written \(EEXIST|ENOTDIR\)/);
});
