/** Nothing more can be put, or nothing more kept: a full spool, disk, bucket or server, and what somebody took away. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'nats';
import { openReplica } from '../../../lib/replica/open.js';
import {
  assertMoments,
  commitIntoSpool,
  LIMIT,
  NATS,
  openScene,
  scenario,
} from '../../support/away-scene.js';
import type { NatsServer, NatsServerOptions } from '../../support/nats-server.js';

/** Gives the bucket this limit, or for 0 the size it has. The bytes in it. */
async function limitBucket(server: NatsServer, maxBytes: number): Promise<number> {
  const connection = await connect({ servers: server.url });
  try {
    const manager = await connection.jetstreamManager();
    const { state } = await manager.streams.info('OBJ_backups');
    await manager.streams.update('OBJ_backups', { max_bytes: maxBytes === 0 ? state.bytes : maxBytes });
    return state.bytes;
  } finally {
    await connection.close();
  }
}

scenario(
  'beyond its limit the spool takes no more, says which moments that costs to the millisecond, and the rest becomes one state',
  async (scene) => {
    const replication = await scene.replicate({ spoolMaxBytes: 60_000 });
    await replication.ready();
    await scene.server.kill();
    const full = /the spool is full: what is committed after (\S+), until/;
    const seqs = await commitIntoSpool(scene, replication, 3);
    while (!replication.events.some(({ message }) => full.test(message))) {
      await scene.writer.command('step 1');
      await sleep(150);
    }
    await scene.writer.command('step 60');
    await scene.server.restart();
    const lost = /moments between (\S+) and (\S+) have no restore point of their own: the spool was full/;
    await replication.waitFor(({ message }) => lost.test(message));
    await replication.stop();
    const told = (words: RegExp) =>
      replication.events.map(({ message }) => words.exec(message)).find(Boolean)!;
    const [, from, until] = told(lost);
    assert.equal(from, told(full)[1]);
    const moments = replication.events.flatMap((event) =>
      event.type === 'put' ? [new Date(event.file.timestampMs).toISOString()] : [],
    );
    assert.equal(moments.indexOf(until!), moments.lastIndexOf(from!) + 1, `${from} ${until} ${moments}`);
    assert.ok(moments.includes(from!));
    await assertMoments(scene, seqs);
  },
);

scenario(
  'stopped with a full spool it says from which moment on there are no states, and that is so when it has begun again',
  async (scene, t) => {
    const options = { spoolMaxBytes: 60_000, stopTimeoutMs: 1000 };
    const replication = await scene.replicate(options);
    await replication.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, replication, 3);
    while (!replication.events.some(({ message }) => /the spool is full/.test(message))) {
      await scene.writer.command('step 1');
      await sleep(150);
    }
    await scene.writer.command('step 20');
    await assert.rejects(replication.stop(), /stopped before .* had its last commits/);
    const cost = /moments after (\S+), until .* no restore point of their own: the spool was full/;
    const [, from] = replication.events.map(({ message }) => cost.exec(message)).find(Boolean)!;
    await scene.server.restart();
    const stoppedMs = Date.now();
    const again = await scene.replicate(options);
    await again.ready();
    await again.stop();
    const replica = await openReplica(scene.replica, { env: {}, nats: NATS });
    t.after(() => replica.close());
    const moments = (await replica.list(0)).map(({ timestampMs }) => timestampMs);
    const last = moments.findLastIndex((ms) => ms < stoppedMs);
    assert.equal(new Date(moments[last]).toISOString(), from);
    assert.equal(moments.length, last + 2, 'the rest is one state');
    await assertMoments(scene, seqs);
  },
);

scenario(
  'a disk that takes no more of the spool is told with its reason, and afterwards which moments that cost',
  async (scene) => {
    const { stage, replica, writer, server } = scene;
    // Of 512 bytes each: what it writes to a file, so that the spool is what meets the limit.
    const limited = ['sh', '-c', 'ulimit -f 128; exec "$0" "$@"'];
    const replication = await stage.replicate({ replica, nats: NATS }, limited);
    await replication.ready();
    await server.kill();
    const isTold = (message: string) =>
      /spool cannot be written \(EFBIG\): what waits .* in memory/.test(message);
    const told = replication.waitFor(({ message }) => isTold(message));
    const seqs: number[] = [];
    while (!replication.events.some(({ message }) => isTold(message))) {
      const spooled = replication.next('spooled');
      const { seq } = await writer.command('step 1');
      if (await Promise.race([spooled.then(() => true), told.then(() => false)])) seqs.push(seq);
    }
    for (let i = 0; i < 10; i++) {
      await writer.command('step 1');
      await sleep(150);
    }
    await server.restart();
    await replication.waitFor(({ message }) =>
      /moments between .* have no restore point of their own: the spool could not be written/.test(message),
    );
    await replication.stop();
    assert.ok(seqs.length > 2, `${seqs.length} moments fitted`);
    await assertMoments(scene, seqs);
  },
);

test(
  'a full bucket, a bucket without permission and a deleted one are told in words; commits are kept meanwhile',
  LIMIT,
  async (t) => {
    let config = '';
    const options: NatsServerOptions = {
      jetstream: 'sync_interval: always',
      get config() {
        return config;
      },
    };
    const scene = await openScene(t, options);
    if (scene === undefined) return;
    const { server } = scene;
    const replication = await scene.replicate();
    await replication.ready();
    const retried = (words: RegExp) =>
      replication.waitFor(({ type, message }) => type === 'retry' && words.test(message));

    const bytes = await limitBucket(server, 0);
    const full = retried(/cannot put ltx\/0\/.*: it is full/);
    const seqs = await commitIntoSpool(scene, replication, 1);
    await full;
    seqs.push(...(await commitIntoSpool(scene, replication, 3)));
    const back = replication.next('back');
    await limitBucket(server, bytes + 100_000_000);
    await back;

    config =
      'authorization { users: [{ user: a, password: b, permissions: { publish: { deny: "$O.>" } } }] }\nno_auth_user: a';
    const refused = retried(/this user may not publish to \$O\.backups/);
    await server.stop();
    seqs.push(...(await commitIntoSpool(scene, replication, 1)));
    await server.restart();
    await refused;
    seqs.push(...(await commitIntoSpool(scene, replication, 3)));
    config = '';
    await server.stop();
    await server.restart();
    await replication.waitFor(({ type }) => type === 'put' && replication.events.at(-1)?.type === 'put');
    await replication.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'a server whose storage is used up is told in words, and takes everything when there is room again',
  async (scene, t) => {
    const { server } = scene;
    const replication = await scene.replicate();
    await replication.ready();
    const connection = await connect({ servers: server.url });
    t.after(() => connection.close());
    const manager = await connection.jetstreamManager();
    await manager.streams.add({ name: 'filler', subjects: ['filler'] });
    const jetstream = connection.jetstream();
    const full = replication.waitFor(
      ({ type, message }) => type === 'retry' && /storage is used up|no resources left/.test(message),
    );
    await assert.rejects(async () => {
      for (;;) await jetstream.publish('filler', new Uint8Array(50_000));
    });
    await assert.rejects(async () => {
      for (;;) await jetstream.publish('filler', new Uint8Array(500));
    });
    const seqs = await commitIntoSpool(scene, replication, 2);
    await full;
    const back = replication.next('back');
    await manager.streams.delete('filler');
    await back;
    await replication.stop();
    await assertMoments(scene, seqs);
  },
  { jetstream: 'sync_interval: always, max_file_store: 4MB' },
);

scenario(
  'a bucket deleted under it is told with what to do; commits wait on disk, and the end says so',
  async (scene) => {
    const replication = await scene.replicate();
    await replication.ready();
    const connection = await connect({ servers: scene.server.url });
    await (await connection.jetstreamManager()).streams.delete('OBJ_backups');
    await connection.close();
    await commitIntoSpool(scene, replication, 3);
    await replication.waitFor(
      ({ type, message }) => type === 'retry' && /there is no bucket backups/.test(message),
    );
    await assert.rejects(
      replication.stop(),
      /They wait in .*stopped before .* had its last commits: .*there is no bucket/s,
    );
    await scene.writer.stop();
  },
);
