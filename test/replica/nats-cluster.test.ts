/** A bucket with three replicas on three servers: races, a leader's death, restarts, much data at once. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ConflictError } from '../../lib/errors.js';
import type { NatsOptions } from '../../lib/replica/nats/connect.js';
import { openReplica } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import { assertIntact, blocks } from '../support/blocks.js';
import { makeBucket, streamLeader } from '../support/nats-replica.js';
import { type NatsServer, startNatsCluster } from '../support/nats-server.js';
import { bytes, bytesOf, contentOf, target } from '../support/replica.js';

const isLong = process.env.JETLITE_LONG === '1';

function openAt(
  t: { after(done: () => Promise<void>): void },
  servers: readonly NatsServer[],
  nats: NatsOptions = {},
): Promise<Replica> {
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`).join(',');
  const opening = openReplica(`nats://${hosts}/backups`, {
    env: {},
    nats: { reconnectWaitMs: 50, ...nats },
  });
  t.after(async () => (await opening).close());
  return opening;
}

test('on three replicas exactly one of two racing writers wins each name', async (t) => {
  const servers = await startNatsCluster(t);
  if (servers === undefined) return;
  await makeBucket(servers[0], 'backups', { replicas: 3 });
  const one = await openAt(t, [servers[0]]);
  const two = await openAt(t, [servers[1]]);
  for (let txid = 1n; txid <= (isLong ? 500n : 50n); txid++) {
    const contents = [randomBytes(100), randomBytes(100)];
    const results = await Promise.allSettled(
      [one, two].map((replica, i) => replica.write(target(0, txid), () => [contents[i]])),
    );
    const winner = results.findIndex((result) => result.status === 'fulfilled');
    assert.notEqual(
      winner,
      -1,
      `race ${txid} had no winner: ${results.map((r) => r.status === 'rejected' && r.reason)}`,
    );
    const loser = results[1 - winner];
    assert.ok(
      loser.status === 'rejected' && loser.reason instanceof ConflictError,
      `race ${txid}: ${loser.status === 'rejected' && loser.reason}`,
    );
    const file = (await one.list(0)).at(-1)!;
    assert.equal(file.maxTxid, txid);
    assert.ok(contents[winner].equals(await bytesOf(two, file)), `race ${txid}`);
  }
});

test('a put goes on over the leader’s death and over the restart of each server in turn', async (t) => {
  const servers = await startNatsCluster(t);
  if (servers === undefined) return;
  await makeBucket(servers[0], 'backups', { replicas: 3 });
  const replica = await openAt(t, servers);
  const killed = new Set<number>();
  const content = blocks(30, 1, async (i) => {
    if (i !== 10 || killed.size > 0) return;
    const index = await streamLeader(servers);
    killed.add(index);
    await servers[index].kill();
    await servers[index].restart();
  });
  const file = await replica.write(target(0, 1n), content);
  assert.equal(killed.size, 1);
  await assertIntact(replica, file, 30, 1);
  let txid = 1n;
  for (const server of servers) {
    await streamLeader(servers);
    await server.stop();
    await replica.write(target(0, ++txid), bytes(`without ${server.port}`));
    await server.restart();
    await replica.write(target(0, ++txid), bytes(`with ${server.port}`));
  }
  const files = await replica.list(0);
  assert.equal(files.length, Number(txid));
  assert.equal(await contentOf(replica, files.at(-1)!), `with ${servers[2].port}`);
});

test('a put does not wait for the answers that a dead leader owes it', { timeout: 120_000 }, async (t) => {
  const servers = await startNatsCluster(t);
  if (servers === undefined) return;
  await makeBucket(servers[0], 'backups', { replicas: 3 });
  const leader = await streamLeader(servers);
  const others = servers.filter((_, i) => i !== leader);
  // Whoever waits for an answer until its time is over does not see the end of this test.
  const replica = await openAt(t, others, { timeoutMs: 600_000 });
  let attempts = 0;
  const content = blocks(30, 5, async (i) => {
    if (i === 0) attempts++;
    if (i === 15 && attempts === 1) await servers[leader].kill();
  });
  const file = await replica.write(target(0, 1n), content);
  assert.equal(attempts, 2);
  await assertIntact(replica, file, 30, 5);
});

test('a large first backup into three replicas arrives whole', async (t) => {
  const servers = await startNatsCluster(t);
  if (servers === undefined) return;
  await makeBucket(servers[0], 'backups', { replicas: 3 });
  const replica = await openAt(t, servers);
  const count = isLong ? 1000 : 300;
  const file = await replica.write(target(0, 1n), blocks(count, 9));
  await assertIntact(replica, file, count, 9);
});
