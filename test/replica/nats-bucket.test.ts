import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { connect, DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from 'nats';
import type { Replica } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { bytes, contentOf, target } from '../support/replica.js';

/** Changes settings of the bucket's stream behind everyone's back. */
async function edit(server: NatsServer, changes: Partial<StreamConfig>): Promise<void> {
  const connection = await connect({ servers: server.url });
  const manager = await connection.jetstreamManager();
  const { config } = await manager.streams.info('OBJ_backups');
  await manager.streams.delete('OBJ_backups');
  await manager.streams.add({ ...config, ...changes });
  await connection.close();
}

/** Changes settings of the bucket's stream, which stays what it is. */
async function update(server: NatsServer, changes: Partial<StreamConfig>): Promise<void> {
  const connection = await connect({ servers: server.url });
  await (await connection.jetstreamManager()).streams.update('OBJ_backups', changes);
  await connection.close();
}

test('a bucket that can lose parts of a replica is read with a warning and written only if that is wanted', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const cases: [Partial<StreamConfig>, RegExp][] = [
    [{ max_age: 3600 * 1e9 }, /objects expire after 3600 s \(max_age\)/],
    [{ discard: DiscardPolicy.Old, max_bytes: 1e9 }, /oldest messages are dropped/],
    [{ discard: DiscardPolicy.Old, max_msgs: 1e6 }, /oldest messages are dropped/],
    [{ max_msgs_per_subject: 100 }, /few messages a subject/],
    [{ allow_rollup_hdrs: false }, /rollup is off/],
    [{ retention: RetentionPolicy.Workqueue }, /as soon as somebody has read them \(retention workqueue\)/],
    [{ retention: RetentionPolicy.Interest }, /as soon as somebody has read them \(retention interest\)/],
    [{ no_ack: true }, /nothing is acknowledged/],
  ];
  const safe = {
    max_age: 0,
    discard: DiscardPolicy.New,
    max_bytes: -1,
    max_msgs: -1,
    max_msgs_per_subject: -1,
    retention: RetentionPolicy.Limits,
    no_ack: false,
  };
  /** Those in which nothing can be put at all, or nothing be found. */
  const hopeless = ['allow_rollup_hdrs', 'retention', 'no_ack'];
  for (const [changes, reason] of cases) {
    await edit(server, { ...safe, allow_rollup_hdrs: true, ...changes });
    const warnings: string[] = [];
    const onWarning = (message: string) => warnings.push(message);
    const careful = await openBucketReplica(t, server, 'backups', { onWarning });
    assert.match(warnings.join('\n'), reason);
    if (changes.retention !== RetentionPolicy.Workqueue) await careful.list();
    await assert.rejects(careful.write(target(0, 1n), bytes('content')), {
      code: 'REPLICA',
      message: reason,
    });
    if (hopeless.some((setting) => setting in changes)) continue;
    const daring = await openBucketReplica(t, server, 'backups', { allowUnsafeBucket: true });
    await daring.write(target(0, 1n), bytes('content'));
  }
  await edit(server, { ...safe, allow_rollup_hdrs: true });
  const safely = await openBucketReplica(t, server);
  await safely.write(target(0, 1n), bytes('content'));
});

const STREAM = {
  retention: RetentionPolicy.Limits,
  discard: DiscardPolicy.New,
  storage: StorageType.File,
  num_replicas: 1,
  allow_rollup_hdrs: true,
};

test('a bucket that takes no objects, or acknowledges what it changes or has not written, is refused before anything is put', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const { streams } = await connection.jetstreamManager();
  const both = (name: string) => [`$O.${name}.C.>`, `$O.${name}.M.>`];
  const cases: [name: string, config: Record<string, unknown>, RegExp | undefined][] = [
    [
      'mirror',
      { mirror: { name: 'OBJ_backups' } },
      /takes no objects: it is a mirror of the stream OBJ_backups/,
    ],
    ['copy', { sources: [{ name: 'OBJ_backups' }] }, /takes no objects: .* does not take \$O\.copy\.C\.>/],
    ['metas', { subjects: ['$O.metas.M.>'] }, /takes no objects: .* does not take \$O\.metas\.C\.>/],
    ['wide', { subjects: ['$O.wide.*.>'] }, undefined],
    ['wider', { subjects: ['$O.wider.>'] }, undefined],
    [
      'moved',
      {
        subjects: both('moved'),
        subject_transform: { src: '$O.moved.C.>', dest: '$O.moved.C.x.>' },
      },
      /can lose parts of a replica: .*subject_transform/,
    ],
    [
      'hasty',
      { subjects: both('hasty'), persist_mode: 'async' },
      /can lose parts of a replica: .*persist_mode/,
    ],
  ];
  for (const [name, config, reason] of cases) {
    const made = await streams
      .add({ ...STREAM, name: `OBJ_${name}`, ...config } as Partial<StreamConfig>)
      .catch(() => undefined);
    // What an older server does not know it leaves out, or refuses.
    const asked = Object.keys(config).every((key) => made !== undefined && key in made.config);
    if (!asked) continue;
    const replica = await openBucketReplica(t, server, name);
    assert.deepEqual(await replica.list(), []);
    const write = replica.write(target(0, 1n), bytes('content'));
    if (reason === undefined) await write;
    else await assert.rejects(write, { code: 'REPLICA', message: reason });
  }
});

test('a bucket that allows too few consumers is told from a server in trouble', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  await edit(server, { max_consumers: 1 });
  const first = await openBucketReplica(t, server, 'backups/first');
  await first.write(target(0, 1n), bytes('one'));
  await first.list();
  const second = await openBucketReplica(t, server, 'backups/second');
  await assert.rejects(second.list(), (error: { message: string; hint: string }) => {
    assert.match(error.message, /cannot list the files: it allows no more consumers \(bucket backups/);
    assert.match(error.hint, /max_consumers/);
    return true;
  });
});

test('a bucket that the nats package made serves as well, in memory and compressed too', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  await connection.jetstream().views.os('plain');
  await connection.jetstream().views.os('memory', { storage: StorageType.Memory });
  const buckets = ['plain', 'memory'];
  try {
    await makeBucket(server, 'compressed', { compression: true, description: 'for tests' });
    buckets.push('compressed');
  } catch (error) {
    assert.match((error as Error).message, /cannot create the bucket: a setting needs a newer server, 2\.10/);
  }
  for (const bucket of buckets) {
    const warnings: string[] = [];
    const onWarning = (message: string) => warnings.push(message);
    const replica = await openBucketReplica(t, server, bucket, { onWarning });
    const file = await replica.write(target(0, 1n), bytes('content'));
    assert.equal(await contentOf(replica, file), 'content');
    if (bucket === 'memory')
      assert.match(warnings.join(), /^bucket memory is in memory: [^,]*gone when its servers end$/);
    else assert.deepEqual(warnings, []);
  }
});

const expires = /can lose parts of a replica: .*max_age/;

for (const [how, become] of [
  [
    'is made anew',
    async (server: NatsServer, replica: Replica, t: TestContext) => {
      const watching = new AbortController();
      t.after(() => watching.abort());
      replica.watch!(watching.signal);
      const returned = new Promise<void>((resolve) => replica.onReturn!(resolve));
      await edit(server, { max_age: 3600 * 1e9 });
      await returned;
    },
  ],
  [
    'is edited before the server restarts',
    async (server: NatsServer) => {
      await update(server, { max_age: 3600 * 1e9 });
      await server.restart();
    },
  ],
  [
    'is made anew before an audit',
    async (server: NatsServer, replica: Replica, _t: TestContext, warnings: readonly string[]) => {
      await edit(server, { max_age: 3600 * 1e9 });
      await replica.audit!();
      assert.equal(warnings.filter((warning) => expires.test(warning)).length, 1);
    },
  ],
] as const) {
  test(`a bucket that ${how} and is unsafe now is warned of once and refused, until that is put right`, async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return;
    await makeBucket(server);
    const warnings: string[] = [];
    const replica = await openBucketReplica(t, server, 'backups', {
      onWarning: (message) => warnings.push(message),
    });
    await replica.write(target(0, 1n), bytes('one'));
    await become(server, replica, t, warnings);
    const refusal = { code: 'REPLICA', message: expires };
    await assert.rejects(replica.write(target(0, 2n), bytes('two')), refusal);
    await assert.rejects(replica.write(target(0, 2n), bytes('two')), refusal);
    assert.equal(warnings.filter((warning) => expires.test(warning)).length, 1);
    await update(server, { max_age: 0 });
    const file = await replica.write(target(0, 2n), bytes('two'));
    assert.equal(await contentOf(replica, file), 'two');
  });
}
