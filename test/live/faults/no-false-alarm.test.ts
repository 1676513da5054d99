/** What is no loss: files that merging and retention remove, and a server whose store the others fill again. */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CaptureStage } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsCluster, startNatsServer } from '../../support/nats-server.js';
import type { Replication } from '../../support/replication.js';

const LIMIT = { timeout: 120_000 };
/** Hours in seconds. */
const LEVELS = {
  levelIntervalsMs: [300, 900, 2700],
  snapshotIntervalMs: 1500,
  snapshotRetentionMs: 2000,
  level0RetentionMs: 500,
};

const HOMES: Record<string, (t: TestContext, stage: CaptureStage) => Promise<string | undefined>> = {
  'a folder': async (_t, stage) => stage.replica,
  NATS: async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server);
    return `${server.url}/backups`;
  },
};

function assertQuiet({ events }: Replication): void {
  const alarms = events.filter(({ type }) => type === 'lost' || type === 'healed');
  assert.deepEqual(alarms, []);
}

for (const [home, open] of Object.entries(HOMES)) {
  test(`audits of ${home} take nothing that merging and retention remove for a loss`, LIMIT, async (t) => {
    const stage = await CaptureStage.open(t);
    const replica = stage && (await open(t, stage));
    if (stage === undefined || replica === undefined) return;
    const writer = await stage.writer({ autocheckpoint: 200, rate: 60, seed: 5, rows: [50, 100] });
    const replication = await stage.replicate({ replica, levels: LEVELS, auditIntervalMs: 100 });
    for (let i = 0; i < 80; i++) await replication.nextPut();
    await writer.stop();
    await replication.stop();
    assertQuiet(replication);
  });
}

test(
  'a cluster’s server that has lost its whole store is filled again, and nothing is lost',
  LIMIT,
  async (t) => {
    const stage = await CaptureStage.open(t);
    const servers = stage && (await startNatsCluster(t));
    if (stage === undefined || servers === undefined) return;
    await makeBucket(servers[0], 'backups', { replicas: 3 });
    const hosts = servers.map(({ port }) => `127.0.0.1:${port}`).join(',');
    const writer = await stage.writer({ autocheckpoint: 200, rate: 20, seed: 6, rows: [50, 100] });
    const replication = await stage.replicate({ replica: `nats://${hosts}/backups`, auditIntervalMs: 100 });
    for (let i = 0; i < 10; i++) await replication.nextPut();
    const [server] = servers;
    await server.kill();
    await rm(join(server.storeDir, 'jetstream'), { recursive: true, force: true });
    await server.restart();
    for (let i = 0; i < 30; i++) await replication.nextPut();
    await writer.stop();
    await replication.stop();
    assertQuiet(replication);
  },
);
