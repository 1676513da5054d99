/** A server that dies while much is written: what that costs the replicating process, and that nothing is lost. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';

const MIB = 1024 * 1024;

/** The largest memory that a process ever had resident, bytes; undefined where the kernel does not say. */
function peakMemory(pid: number): number | undefined {
  try {
    const kib = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

test('a server killed mid-upload and away for a while: bounded memory, many moments, and no commit is lost', {
  timeout: 240_000,
}, async (t) => {
  const server = await startNatsServer(t, { jetstream: 'sync_interval: always' });
  const stage = server && (await CaptureStage.open(t));
  if (server === undefined || stage === undefined) return;
  await makeBucket(server);
  const replica = `${server.url}/backups`;
  const writer = await stage.writer({
    rate: 50,
    sizes: [[1, 5, 60]],
    payload: [200, 2000],
    rows: [5000, 15000],
  });
  const replication = await stage.replicate({ replica, nats: { reconnectWaitMs: 100, timeoutMs: 2000 } });
  await replication.firstPut();
  await replication.nextPut();
  await server.kill();
  const awayFrom = Date.now();
  await delay(LONG ? 60_000 : 4000);
  const awayUntil = Date.now();
  // Numbers that come from another process are decimal text.
  const waiting = replication.events.flatMap((event) =>
    event.type === 'spooled' ? [BigInt(event.txid)] : [],
  );
  const spooled = waiting.length;
  await server.restart();
  // Told to stop, it would have a few seconds for what waits, and leave the rest for the next start.
  const last = waiting.at(-1) ?? 0n;
  await replication.waitFor((event) => event.type === 'put' && BigInt(event.file.maxTxid) >= last);
  const { commits } = await writer.stop();
  const peak = peakMemory(replication.pid);
  const { images } = await replication.stop();
  const { txids, proven } = await stage.prove({ replica, limit: 40 });
  const moments = replication.events.filter(
    (event) =>
      event.type === 'put' && event.file.timestampMs > awayFrom && event.file.timestampMs < awayUntil,
  ).length;
  t.diagnostic(
    `${commits} commits, ${spooled} files spooled, ${moments} moments of the ${(awayUntil - awayFrom) / 1000} s away, ` +
      `${images} images, peak ${peak === undefined ? '?' : Math.round(peak / MIB)} MiB, ${proven} of ${txids} TXIDs proven`,
  );
  assert.ok(spooled >= 3 && moments >= 3, `${moments} moments, ${spooled} files spooled`);
  if (peak !== undefined) assert.ok(peak < 260 * MIB, `${Math.round(peak / MIB)} MiB`);
});
