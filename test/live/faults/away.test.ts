/** A NATS server that goes away while a database is replicated: nothing is lost, and every moment keeps its state. */

import assert from 'node:assert/strict';
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'nats';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { type NatsServer, type NatsServerOptions, startNatsServer } from '../../support/nats-server.js';
import type { OracleWriter } from '../../support/oracle/writer.js';
import type { Replication, ReplicationOptions } from '../../support/replication.js';

/** Connections that are tried again soon, and given up soon. */
const NATS = { reconnectWaitMs: 50, timeoutMs: 1000 };
/** How long the longest outage takes. */
const OUTAGE_MS = LONG ? 60_000 : 0;
const DURABLE = { jetstream: 'sync_interval: always' };

interface Scene {
  readonly stage: CaptureStage;
  readonly server: NatsServer;
  readonly replica: string;
  readonly writer: OracleWriter;
  replicate(options?: Partial<ReplicationOptions>): Promise<Replication>;
}

/** A writer that commits when it is told to, and a server with a bucket. */
async function open(t: TestContext, options: NatsServerOptions): Promise<Scene | undefined> {
  const server = await startNatsServer(t, options);
  const stage = server && (await CaptureStage.open(t));
  if (server === undefined || stage === undefined) return undefined;
  await makeBucket(server);
  const replica = `${server.url}/backups`;
  const writer = await stage.writer({ paused: true, sizes: [[1, 1, 40]], autocheckpoint: 20 });
  await writer.command('step 5');
  const replicate = (more: Partial<ReplicationOptions> = {}) =>
    stage.replicate({ replica, nats: NATS, ...more });
  return { stage, server, replica, writer, replicate };
}

/** Commits one after the other, each once the one before it waits on disk. Their sequence numbers. */
async function commitIntoSpool(
  scene: Pick<Scene, 'writer'>,
  replication: Replication,
  count: number,
): Promise<number[]> {
  const seqs: number[] = [];
  for (let i = 0; i < count; i++) {
    const spooled = replication.next('spooled');
    seqs.push((await scene.writer.command('step 1')).seq);
    await spooled;
  }
  return seqs;
}

/** Every state of the replica is a committed one, the newest is the source's, and those of `seqs` are among them. */
async function assertMoments(
  { stage, replica, writer }: Pick<Scene, 'stage' | 'replica' | 'writer'>,
  seqs: readonly number[],
): Promise<void> {
  await writer.stop();
  const { states } = await stage.prove({ replica, limit: 1000 });
  const found = new Set(states.map(({ seq }) => seq));
  assert.deepEqual(
    seqs.filter((seq) => !found.has(seq)),
    [],
    'commits without a state of their own',
  );
}

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

/** Nobody but its owner may look into a folder of state: it holds what the database holds. */
async function assertPrivate(folder: string): Promise<void> {
  const inside = await readdir(folder, { recursive: true });
  assert.ok(inside.some((name) => name.endsWith('.spool')));
  for (const path of [folder, ...inside.map((name) => join(folder, name))]) {
    const { mode } = await stat(path);
    assert.equal(mode & 0o077, 0, `${path}: ${mode.toString(8)}`);
  }
}

const LIMIT = { timeout: LONG ? 300_000 : 90_000 };

/** A test on a scene of its own; skipped where there is no server. */
function scenario(
  name: string,
  run: (scene: Scene, t: TestContext) => Promise<void>,
  options: NatsServerOptions = DURABLE,
): void {
  test(name, LIMIT, async (t) => {
    const scene = await open(t, options);
    if (scene !== undefined) await run(scene, t);
  });
}

scenario('what is committed while the server is down keeps a state for each moment', async (scene) => {
  const replication = await scene.replicate();
  await replication.ready();
  await scene.server.kill();
  const killedAt = performance.now();
  const seqs = await commitIntoSpool(scene, replication, 25);
  while (performance.now() - killedAt < OUTAGE_MS) {
    seqs.push(...(await commitIntoSpool(scene, replication, 1)));
    await sleep(100);
  }
  await scene.server.restart();
  await replication.waitFor((event) => event.type === 'put' && event.file.maxTxid >= 20n);
  const { images } = await replication.stop();
  assert.equal(images, 1, 'the first one');
  await assertMoments(scene, seqs);
});

scenario(
  'a process killed while the server is down leaves what a later one puts, the server being back',
  async (scene) => {
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, killed, 8);
    await killed.kill();
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    const { images } = await next.stop();
    assert.equal(images, 0, 'it went on where the other one stood');
    await assertMoments(scene, seqs);
  },
);

scenario(
  'a process started while the server is still down begins with what a killed one left',
  async (scene) => {
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, killed, 8);
    await killed.kill();
    const next = await scene.replicate();
    await next.waitFor((event) => event.type === 'retry');
    await scene.server.restart();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'told to stop while the server is down, it says where the last commits wait, and puts them when started again',
  async (scene) => {
    const stopped = await scene.replicate();
    await stopped.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, stopped, 3);
    seqs.push((await scene.writer.command('step 1')).seq);
    await assert.rejects(
      stopped.stop(),
      /"They wait in [^"]*\.app\.db-jetlite\/[0-9a-f]+\/spool: start again/,
    );
    await assertPrivate(join(scene.stage.folder, 'source', '.app.db-jetlite'));
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'what waits on disk is dropped, and said, if another program went on with the replica meanwhile',
  async (scene) => {
    const { stage, writer } = scene;
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    await commitIntoSpool(scene, killed, 5);
    await killed.kill();
    await scene.server.restart();
    // From another folder of state: it knows nothing of what waits there.
    const other = await scene.replicate({ stateDir: join(stage.folder, 'elsewhere') });
    await other.ready();
    const put = other.nextPut();
    await writer.command('step 1');
    await put;
    // It got less far than what waits: laid behind its files, the rest would be changes of one state upon another.
    await other.stop();
    const next = await scene.replicate();
    await next.waitFor((event) => event.level === 'warn' && /5 files in .* are dropped/.test(event.message));
    await next.ready();
    await next.stop();
    await assertMoments(scene, []);
  },
);

scenario(
  'a server that stalls for longer than the timeout is waited for, and takes everything in the end',
  async (scene) => {
    const replication = await scene.replicate({ nats: { reconnectWaitMs: 50, timeoutMs: 300 } });
    await replication.ready();
    scene.server.pause();
    const seqs = await commitIntoSpool(scene, replication, 5);
    await replication.waitFor((event) => event.type === 'retry');
    seqs.push(...(await commitIntoSpool(scene, replication, 5)));
    scene.server.resume();
    await replication.waitFor((event) => event.type === 'back');
    await replication.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'beyond its limit the spool takes no more, says which moments that costs, and the rest becomes one state',
  async (scene) => {
    const replication = await scene.replicate({ spoolMaxBytes: 60_000 });
    await replication.ready();
    await scene.server.kill();
    const isFull = (message: string) => /the spool is full: what is committed from \d{4}-/.test(message);
    const seqs: number[] = [];
    while (!replication.events.some(({ message }) => isFull(message))) {
      const spooled = replication.next('spooled');
      const { seq } = await scene.writer.command('step 1');
      const full = replication.waitFor(({ message }) => isFull(message));
      if (await Promise.race([spooled.then(() => true), full.then(() => false)])) seqs.push(seq);
    }
    await scene.writer.command('step 60');
    await scene.server.restart();
    await replication.waitFor(({ message }) =>
      /have no restore point of their own: the spool was full/.test(message),
    );
    await replication.stop();
    assert.ok(seqs.length > 2, `${seqs.length} moments fitted`);
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
    const scene = await open(t, options);
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

test(
  'a folder that vanishes is not begun anew without its beginning, and gets everything when it is back',
  LIMIT,
  async (t) => {
    const stage = await CaptureStage.open(t);
    if (stage === undefined) return;
    const { replica } = stage;
    const writer = await stage.writer({ paused: true, sizes: [[1, 1, 40]], autocheckpoint: 20 });
    await writer.command('step 5');
    const replication = await stage.replicate();
    await replication.ready();
    const aside = join(stage.folder, 'unmounted');
    await rename(replica, aside);
    const seqs = await commitIntoSpool({ writer }, replication, 5);
    assert.ok(replication.events.some(({ type, message }) => type === 'retry' && /is gone/.test(message)));
    await assert.rejects(readdir(join(replica, 'ltx')), { code: 'ENOENT' });
    await rm(replica, { recursive: true, force: true });
    await rename(aside, replica);
    await replication.waitFor(({ type }) => type === 'back');
    await replication.stop();
    await assertMoments({ stage, replica, writer }, seqs);
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

scenario(
  'a server that stays away for longer than max-reconnects ends it; what waits is put by the next start',
  async (scene) => {
    const replication = await scene.replicate({ nats: { ...NATS, maxReconnects: 40 } });
    await replication.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, replication, 2);
    await assert.rejects(replication.result(), /They wait in .*given up after max-reconnects tries/s);
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);
