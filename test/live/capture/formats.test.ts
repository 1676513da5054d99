/** Everything a database file or a WAL can be written as. */
import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { isWalBigEndian, makeWalBigEndian } from '../../support/wal-file.js';

test('every page size, with reserved bytes', async (t) => {
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const reservedBytes = pageSize === 512 ? 32 : pageSize === 4096 ? 0 : 12;
    const writer = await stage.writer({ pageSize, reservedBytes, seed: pageSize, rows: [50, 800] });
    const replication = await stage.replicate();
    await replication.firstPut();
    await sleep(LONG ? 5000 : 300);
    await writer.stop();
    await replication.stop();
    const proof = await stage.prove({ limit: LONG ? 200 : 20 });
    t.diagnostic(`${pageSize}: ${proof.proven} of ${proof.txids} TXIDs proven`);
  }
});

test('a WAL with big-endian checksums, and its restart with little-endian ones', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const wal = `${stage.database}-wal`;
  const options = { autocheckpoint: 0, paused: true, rows: [200, 2000] } as const;
  const first = await stage.writer(options);
  await first.command('step 100');
  await first.kill();
  makeWalBigEndian(wal);
  await rm(`${stage.database}-shm`);

  const writer = await stage.writer({ ...options, seed: 2 });
  assert.equal((await writer.command('state')).seq, 101);
  const replication = await stage.replicate();
  await replication.firstPut();
  for (let round = 0; round < 10; round++) {
    await writer.command('step 10');
    await sleep(20);
  }
  assert.ok(isWalBigEndian(wal), 'SQLite goes on as the WAL began');
  await writer.checkpoint('PASSIVE');
  for (let round = 0; round < 10; round++) {
    await writer.command('step 10');
    await sleep(20);
  }
  assert.ok(!isWalBigEndian(wal), 'a restarted WAL is written in the machine’s own order');
  await writer.stop();
  await replication.stop();
  await stage.prove();
});

test('a database past 1 GiB: the lock page stays out', {
  skip: !LONG && 'JETLITE_LONG=1 runs it',
}, async (t) => {
  for (const pageSize of [4096, 65536]) {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const writer = await stage.writer({
      pageSize,
      paused: true,
      synchronous: 'off',
      payload: [25_000_000, 25_000_000],
      largePayloadShare: 0,
      rows: [1, 1000],
    });
    const fill = async (bytes: number): Promise<void> => {
      while ((await stat(stage.database)).size < bytes) {
        await writer.transaction({ kind: 'insert', rows: 2 });
        await writer.checkpoint('PASSIVE');
      }
    };
    await fill(950_000_000);
    const replication = await stage.replicate();
    await replication.firstPut();
    await fill(1_200_000_000);
    await writer.command('step 3');
    await writer.stop();
    await replication.stop();
    const proof = await stage.prove({ limit: 3 });
    t.diagnostic(`page size ${pageSize}: ${proof.txids} TXIDs`);
  }
});
