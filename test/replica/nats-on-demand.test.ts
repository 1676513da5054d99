import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { connect } from 'nats';
import { openReplica } from '../../lib/replica/open.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { startNatsProxy } from '../support/nats-proxy.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { bytes, bytesOf, target } from '../support/replica.js';

const CHUNK = 512 * 1024;

async function readOnDemand(replica: Replica, file: LtxFileInfo): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of replica.read(file, undefined, { onDemand: true })) parts.push(part.slice());
  return Buffer.concat(parts);
}

test('on demand, objects of every size around a chunk are read whole', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  let txid = 0n;
  for (const size of [0, 1, 64 * 1024, 64 * 1024 + 1, CHUNK, CHUNK + 1, 5 * CHUNK - 1, 6 * CHUNK]) {
    const content = randomBytes(size);
    const file = await replica.write(target(1, ++txid), () => [content]);
    assert.ok(content.equals(await readOnDemand(replica, file)), `${size} bytes`);
  }
});

test('on demand, an object that lost a chunk is damaged, and one that was removed is gone', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const file = await replica.write(target(1, 1n), () => [randomBytes(5 * CHUNK)]);
  const connection = await connect({ servers: server.url });
  const manager = await connection.jetstreamManager();
  await manager.streams.deleteMessage('OBJ_backups', 4);
  await connection.close();
  await assert.rejects(readOnDemand(replica, file), { code: 'FORMAT' });
  await replica.remove([file]);
  await assert.rejects(readOnDemand(replica, file), { code: 'NOT_FOUND' });
});

test('on demand, a server that has not got all chunks yet is no damage: its copy may lag behind the leader’s', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const direct = await openBucketReplica(t, server);
  const content = randomBytes(5 * CHUNK);
  const file = await direct.write(target(1, 1n), () => [content]);
  let requests = 0;
  const none = 'NATS/1.0 404 No Messages\r\n\r\n';
  const answer = `HMSG INBOX SID ${none.length} ${none.length}\r\n${none}\r\n`;
  const proxy = await startNatsProxy(t, server, (subject) => {
    if (!subject.includes('.MSG.NEXT.')) return 'pass';
    return ++requests === 2 ? { answer } : 'pass';
  });
  const replica = await openReplica(`${proxy.url}/backups`, { env: {} });
  t.after(() => replica.close());
  await assert.rejects(readOnDemand(replica, file), { code: 'REPLICA', message: /does not send all chunks/ });
  assert.ok(content.equals(await readOnDemand(replica, file)));
});

test('a small object that lost its only chunk, or has another’s bytes in its place, is damaged however it is read', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const connection = await connect({ servers: server.url });
  const manager = await connection.jetstreamManager();
  const subjects = async (): Promise<string[]> => {
    const { state } = await manager.streams.info('OBJ_backups', { subjects_filter: '$O.backups.C.>' });
    return Object.keys(state.subjects ?? {});
  };
  const file = await replica.write(target(1, 1n), bytes('as it was put'));
  const [subject] = await subjects();
  assert.equal((await bytesOf(replica, file)).toString(), 'as it was put');
  for (const found of ['AS IT WAS PUT', 'much longer than what was put']) {
    await manager.streams.purge('OBJ_backups', { filter: subject });
    await connection.jetstream().publish(subject, found);
    await assert.rejects(bytesOf(replica, file), { code: 'FORMAT' }, found);
    await assert.rejects(readOnDemand(replica, file), { code: 'FORMAT' }, found);
  }
  await manager.streams.purge('OBJ_backups', { filter: subject });
  await assert.rejects(bytesOf(replica, file), { code: 'FORMAT' });
  await assert.rejects(readOnDemand(replica, file), { code: 'FORMAT' });
  await connection.close();
});

test('on demand, the server sends a few chunks more than were taken, however long the object', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const [chunks, taken] = [40, 10];
  const file = await replica.write(target(1, 1n), () => [randomBytes(chunks * CHUNK)]);
  const reading = replica.read(file, undefined, { onDemand: true })[Symbol.asyncIterator]();
  for (let chunk = 0; chunk < taken; chunk++) {
    await reading.next();
    // Two round trips: what was asked for arrives meanwhile.
    await replica.readExtra('none');
    await replica.readExtra('none');
  }
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const manager = await connection.jetstreamManager();
  const pending: number[] = [];
  for await (const { num_pending } of manager.consumers.list('OBJ_backups')) pending.push(num_pending);
  const held = chunks - taken - Math.max(...pending);
  assert.ok(held <= 2, `${held} chunks were sent that nobody has taken`);
  await reading.return?.();
});

test('many large objects read side by side by a reader that is busy do not cost it its connection', async (t) => {
  const server = await startNatsServer(t, { config: 'max_pending: 16MB' });
  if (server === undefined) return;
  await makeBucket(server);
  const warnings: string[] = [];
  const onWarning = (message: string) => warnings.push(message);
  const replica = await openBucketReplica(t, server, 'backups', { onWarning });
  const content = randomBytes(8 * CHUNK);
  const files: LtxFileInfo[] = [];
  for (let txid = 1n; txid <= 12n; txid++) files.push(await replica.write(target(1, txid), () => [content]));
  const reading = files.map((file) =>
    replica.read(file, undefined, { onDemand: true })[Symbol.asyncIterator](),
  );
  for (let done = false; !done; ) {
    for (const one of reading) {
      done = (await one.next()).done === true;
      // What decoding costs, without giving the connection a turn.
      const until = performance.now() + 10;
      while (performance.now() < until);
    }
  }
  assert.deepEqual(warnings, []);
});
