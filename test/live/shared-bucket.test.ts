/** One bucket that several databases share, each under its prefix, some of them below another's, beside another program. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect, type ObjectStore } from 'nats';
import { restore } from '../../lib/jobs/restore.js';
import { openReplica } from '../../lib/replica/open.js';
import { CaptureStage, LONG } from '../support/capture-stage.js';
import { makeBucket } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { firstDifference, OracleChecker } from '../support/oracle/check.js';
import { proveOffer } from '../support/oracle/offered-states.js';
import type { OracleWriter } from '../support/oracle/writer.js';
import { randomSource } from '../support/random.js';
import type { Replication } from '../support/replication.js';

/** Each is a part of the next one's, or looks like a part of the layout. */
const PREFIXES = ['', '/ltx', '/tenant', '/tenant/one'];
const LEVELS = {
  levelIntervalsMs: [400, 1200],
  snapshotIntervalMs: 1500,
  snapshotRetentionMs: 3000,
  level0RetentionMs: 800,
};
const OUTAGES = LONG ? 10 : 1;
const LIMIT = { timeout: LONG ? 600_000 : 90_000 };

interface Tenant {
  readonly stage: CaptureStage;
  readonly writer: OracleWriter;
  readonly url: string;
  readonly replication: Replication;
}

async function tenant(t: TestContext, server: NatsServer, prefix: string): Promise<Tenant | undefined> {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return undefined;
  const writer = await stage.writer({ rate: 15, sizes: [[1, 1, 40]], rows: [50, 200] });
  const url = `${server.url}/backups${prefix}`;
  const nats = { reconnectWaitMs: 50 };
  return { stage, writer, url, replication: await stage.replicate({ replica: url, levels: LEVELS, nats }) };
}

async function withStore<T>(server: NatsServer, work: (store: ObjectStore) => Promise<T>): Promise<T> {
  const connection = await connect({ servers: server.url });
  try {
    return await work(await connection.jetstream().views.os('backups'));
  } finally {
    await connection.close();
  }
}

test(
  'databases in one bucket are merged, tidied and restored each by itself, and what others put stays',
  LIMIT,
  async (t) => {
    const server = await startNatsServer(t, { jetstream: 'sync_interval: always' });
    if (server === undefined) return;
    await makeBucket(server);
    const foreign = randomBytes(300_000);
    await withStore(server, (store) => store.putBlob({ name: 'tenant/one.tar' }, foreign));
    const tenants: Tenant[] = [];
    for (const prefix of PREFIXES) {
      const one = await tenant(t, server, prefix);
      if (one === undefined) return;
      tenants.push(one);
    }
    await Promise.all(tenants.map(({ replication }) => replication.firstPut()));
    for (let outages = 0; outages < OUTAGES; outages++) {
      await Promise.all(tenants.map(({ replication }) => replication.next('removed')));
      await server.kill();
      await server.restart();
      await Promise.all(tenants.map(({ replication }) => replication.nextPut()));
    }
    const random = randomSource(t);
    const checker = new OracleChecker();
    t.after(() => checker.close());
    for (const { stage, writer, url, replication } of tenants) {
      await writer.stop();
      await replication.stop();
      const replica = await openReplica(url, { env: {} });
      t.after(() => replica.close());
      const ledger = () => stage.ledger();
      const { folder, database } = stage;
      await proveOffer({ replica, checker, folder, ledger, random, moving: false, limit: 6 });
      const output = join(folder, 'newest.db');
      await restore({ replica, output });
      assert.equal(await firstDifference(database, output), undefined);
      const { flaws } = (await replica.audit?.()) ?? {};
      assert.deepEqual(flaws, []);
    }
    assert.deepEqual(
      await withStore(server, (store) => store.getBlob('tenant/one.tar')),
      new Uint8Array(foreign),
    );
  },
);
