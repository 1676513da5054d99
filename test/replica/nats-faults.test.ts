/** Servers that refuse, stop, vanish or run full while objects are put and read. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from 'nats';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { assertIntact, blocks } from '../support/blocks.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { bytes, bytesOf, contentOf, target } from '../support/replica.js';

const MIB = 1024 * 1024;
const CHUNK = MIB / 2;

/** Every nuid with chunks in the bucket. */
async function nuidsWithChunks(server: NatsServer): Promise<string[]> {
  const connection = await connect({ servers: server.url });
  const manager = await connection.jetstreamManager();
  const { state } = await manager.streams.info('OBJ_backups', { subjects_filter: '$O.backups.C.>' });
  await connection.close();
  return Object.keys(state.subjects ?? {});
}

for (const [limits, jetstream] of [
  ['default limits', ''],
  ['a limit of 1 MB', 'max_buffered_size: 1MB'],
]) {
  test(`a server with ${limits} on what waits gets everything in the end, from eight writers at once`, async (t) => {
    const server = await startNatsServer(t, { jetstream });
    if (server === undefined) return;
    await makeBucket(server);
    const count = process.env.JETLITE_LONG === '1' ? 200 : 12;
    const replicas = await Promise.all(Array.from({ length: 8 }, () => openBucketReplica(t, server)));
    const files = await Promise.all(
      replicas.map((replica, i) => replica.write(target(1, BigInt(i + 1)), blocks(count, i))),
    );
    for (const [i, file] of files.entries()) await assertIntact(replicas[0], file, count, i);
    assert.equal((await nuidsWithChunks(server)).length, 8);
  });
}

test('chunks fit into the server’s largest message, small or large', async (t) => {
  for (const maxPayload of [64 * 1024, 8 * MIB]) {
    const server = await startNatsServer(t, { config: `max_payload: ${maxPayload}` });
    if (server === undefined) return;
    await makeBucket(server);
    const replica = await openBucketReplica(t, server);
    const file = await replica.write(target(1, 1n), blocks(3, 1));
    await assertIntact(replica, file, 3, 1);
    assert.equal(await contentOf(replica, await replica.write(target(0, 2n), bytes('small'))), 'small');
  }
});

test('a server killed and restarted in the middle of a put ends with the whole object and nothing else', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 50 } });
  let kills = 0;
  const content = blocks(40, 7, async (i) => {
    if (i !== 20 || kills++ > 0) return;
    await server.kill();
    await server.restart();
  });
  const file = await replica.write(target(0, 1n), content);
  assert.ok(kills > 0);
  await assertIntact(replica, file, 40, 7);
  assert.equal((await nuidsWithChunks(server)).length, 1);
  assert.deepEqual(await replica.list(), [file]);
});

test('puts one after the other survive a server that is killed again and again, each exactly once', async (t) => {
  const server = await startNatsServer(t, { jetstream: 'sync_interval: always' });
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 20 } });
  let done = false;
  const killing = (async () => {
    for (let i = 0; i < 5 && !done; i++) {
      await delay(150);
      await server.kill();
      await server.restart();
    }
  })();
  const files: LtxFileInfo[] = [];
  for (let txid = 1n; txid <= 300n; txid++) {
    files.push(await replica.write(target(0, txid), bytes(`content of ${txid}`)));
    await delay(3);
  }
  done = true;
  await killing;
  assert.deepEqual(await replica.list(), files);
  for (const file of files) assert.equal(await contentOf(replica, file), `content of ${file.maxTxid}`);
  assert.equal((await nuidsWithChunks(server)).length, 300);
});

test('a read goes on where it was when the server comes back', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 50 } });
  const file = await replica.write(target(1, 1n), blocks(40, 3));
  let restarts = 0;
  await assertIntact(replica, file, 40, 3, async (i) => {
    if (i !== 9) return;
    await server.stop();
    await server.restart();
    restarts++;
  });
  assert.equal(restarts, 1);
});

test('a server that stalls longer than the timeout delays a put but does not break it', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { timeoutMs: 500 } });
  let stalls = 0;
  const content = blocks(20, 5, async (i) => {
    if (i !== 10 || stalls++ > 0) return;
    server.pause();
    setTimeout(() => server.resume(), 1000);
  });
  const file = await replica.write(target(0, 1n), content);
  await assertIntact(replica, file, 20, 5);
  assert.equal((await nuidsWithChunks(server)).length, 1);
});

test('while the server does not answer, a put reads no more of its source than its window holds', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  let read = 0;
  const content = blocks(64, 6, (i) => {
    if (i === 0) server.pause();
    read++;
  });
  const putting = replica.write(target(0, 1n), content);
  await delay(1000);
  server.resume();
  // The blocks are of 1 MiB, the window of 8 chunks of half of it; two more chunks are held while it is full.
  assert.ok(read <= 6, `${read} blocks were read`);
  await assertIntact(replica, await putting, 64, 6);
});

test('a server that stays away is given up, with its address', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { timeoutMs: 300 } });
  await server.stop();
  await assert.rejects(replica.write(target(0, 1n), bytes('one')), {
    code: 'REPLICA',
    message: new RegExp(`NATS server .*127\\.0\\.0\\.1:${server.port}`),
  });
  await assert.rejects(replica.list(), { code: 'REPLICA' });
});

test('a full bucket refuses in words, keeps nothing half-visible, and takes more when there is room', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server, 'backups', { maxBytes: 10 * MIB });
  const replica = await openBucketReplica(t, server);
  const kept = await replica.write(target(9, 1n, 1n), blocks(4, 1));
  await assert.rejects(replica.write(target(0, 2n), blocks(20, 2)), {
    code: 'REPLICA',
    message: /cannot put ltx\/0\/.*full/,
  });
  assert.deepEqual(await replica.list(), [kept]);
  assert.equal((await nuidsWithChunks(server)).length, 1);
  const file = await replica.write(target(0, 2n), blocks(4, 2));
  await assertIntact(replica, file, 4, 2);
});

test('a bucket deleted under us is an error that says how to make one', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const file = await replica.write(target(0, 1n), bytes('one'));
  const connection = await connect({ servers: server.url });
  await (await connection.jetstreamManager()).streams.delete('OBJ_backups');
  await connection.close();
  const missing = {
    code: 'REPLICA',
    message: /there is no bucket backups/,
    hint: /jetlite bucket create backups/,
  };
  await assert.rejects(replica.write(target(0, 2n), bytes('two')), missing);
  await assert.rejects(replica.list(), missing);
  await assert.rejects(contentOf(replica, file), missing);
});

test('damage is found: a chunk missing, a chunk twice, a digest that differs, a meta that lies', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const manager = await connection.jetstreamManager();
  const write = (txid: bigint) => replica.write(target(1, txid), blocks(2, 1));
  const chunksOf = (file: LtxFileInfo) => `$O.backups.C.${file.version?.split(':')[1]}`;

  const short = await write(1n);
  const { seq } = await manager.streams.getMessage('OBJ_backups', { last_by_subj: chunksOf(short) });
  await manager.streams.deleteMessage('OBJ_backups', seq);
  await assert.rejects(contentOf(replica, short), { code: 'FORMAT', message: /expected 4 chunks, found 3/ });

  const long = await write(2n);
  await connection.jetstream().publish(chunksOf(long), new Uint8Array(10));
  await assert.rejects(contentOf(replica, long), { code: 'FORMAT', message: /expected 4 chunks, found 5/ });

  const metas = '$O.backups.M.';
  const lie = async (
    file: LtxFileInfo,
    change: (meta: Record<string, unknown>) => void,
  ): Promise<LtxFileInfo> => {
    const name = `ltx/1/${file.minTxid.toString(16).padStart(16, '0')}-${file.maxTxid.toString(16).padStart(16, '0')}.ltx`;
    const subject =
      metas +
      Buffer.from(name)
        .toString('base64url')
        .padEnd(Math.ceil(name.length / 3) * 4, '=');
    const meta = (await manager.streams.getMessage('OBJ_backups', { last_by_subj: subject })).json<
      Record<string, unknown>
    >();
    change(meta);
    await connection.jetstream().publish(subject, JSON.stringify(meta));
    return (await replica.list()).find((found) => found.minTxid === file.minTxid) as LtxFileInfo;
  };
  const forged = await lie(await write(3n), (meta) => {
    meta.digest = `SHA-256=${'A'.repeat(43)}=`;
  });
  await assert.rejects(contentOf(replica, forged), { code: 'FORMAT', message: /expected the digest/ });
  const sized = await lie(await write(4n), (meta) => {
    meta.size = 2 ** 52;
  });
  await assert.rejects(contentOf(replica, sized), {
    code: 'FORMAT',
    message: /expected 4503599627370496 bytes/,
  });
  const part = contentOf(replica, sized, { offset: 2 ** 51, length: 10 });
  await assert.rejects(part, { code: 'FORMAT', message: /expected 4503599627370496 bytes/ });
  const shifted = await lie(await write(6n), (meta) => {
    meta.options = { max_chunk_size: CHUNK + 1 };
  });
  assert.equal((await bytesOf(replica, shifted)).length, 4 * CHUNK);
  await assert.rejects(bytesOf(replica, shifted, { offset: CHUNK + 10, length: 10 }), {
    code: 'FORMAT',
    message: /chunk 2 has not the size/,
  });
  const small = await lie(await write(7n), (meta) => {
    meta.size = 10;
  });
  let gathered = 0;
  const gather = async (): Promise<void> => {
    for await (const bytes of replica.read(small)) gathered += bytes.length;
  };
  await assert.rejects(gather(), { code: 'FORMAT', message: /expected 10 bytes, found more/ });
  assert.equal(gathered, 0);
  const many = await lie(await write(5n), (meta) => {
    meta.chunks = 2 ** 52;
  });
  await assert.rejects(contentOf(replica, many), { code: 'FORMAT', message: /chunks, found 4/ });
});
