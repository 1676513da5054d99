import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { connect } from 'nats';
import { ConflictError } from '../../lib/errors.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { bytes, bytesOf, contentOf, target } from '../support/replica.js';

const CHUNK = 512 * 1024;

test('objects of every size around a chunk are read back whole and in ranges', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups/tenant/one');
  assert.equal(replica.url, `${server.url}/backups/tenant/one`);
  let txid = 0n;
  for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20_000_000]) {
    const content = randomBytes(size);
    const file = await replica.write(target(0, ++txid), () => [
      content.subarray(0, 10),
      content.subarray(10),
    ]);
    assert.equal(file.size, size);
    assert.ok(content.equals(await bytesOf(replica, file)), `${size} bytes`);
    for (const offset of [0, CHUNK - 5, Math.floor(size * 0.7), size - 3]) {
      if (offset < 0) continue;
      const part = await bytesOf(replica, file, { offset, length: 100 });
      assert.ok(content.subarray(offset, offset + 100).equals(part), `${size} bytes from ${offset}`);
    }
    assert.deepEqual(await replica.list(), (await replica.list(0)).concat(await replica.list(1)));
    assert.deepEqual((await replica.list()).at(-1), file);
  }
});

test('chunks stay what they were when their source uses its memory again', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const content = randomBytes(12_345_678);
  const file = await replica.write(target(0, 1n), function* () {
    const memory = new Uint8Array(300_000);
    for (let from = 0; from < content.length; from += memory.length) {
      const size = Math.min(memory.length, content.length - from);
      memory.set(content.subarray(from, from + size));
      yield memory.subarray(0, size);
      memory.fill(0xee);
    }
  });
  assert.ok(content.equals(await bytesOf(replica, file)));
});

test('of prefixes that begin alike, whatever their length, each lists its own files and no others', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const prefixes = ['', '/l', '/lt', '/ltx', '/ltx/ltx', '/ltx/ltx-', '/ltx/ltx–', '/ltx/ltx/ltx'];
  for (const [i, prefix] of prefixes.entries()) {
    const replica = await openBucketReplica(t, server, `backups${prefix}`);
    for (const level of [0, 9]) await replica.write(target(level, BigInt(i + 1)), bytes(prefix));
  }
  for (const [i, prefix] of prefixes.entries()) {
    const files = await (await openBucketReplica(t, server, `backups${prefix}`)).list();
    const found = files.map(({ level, maxTxid }) => `${level}/${maxTxid}`);
    assert.deepEqual(found, [`0/${i + 1}`, `9/${i + 1}`], prefix);
  }
});

test('a level-0 name is given once: the same bytes again are success, others a conflict, also after removal', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const one = await openBucketReplica(t, server);
  const two = await openBucketReplica(t, server);
  const first = await one.write(target(0, 5n), bytes('five'));
  assert.deepEqual(await one.write(target(0, 5n), bytes('five')), first);
  await assert.rejects(two.write(target(0, 5n), bytes('FIVE')), (error) => {
    assert.ok(error instanceof ConflictError);
    assert.match(error.message, /0000000000000005\.ltx in bucket backups was put by .* at 20/);
    return true;
  });
  assert.equal(await contentOf(two, first), 'five');
  await one.remove([first]);
  await one.remove([first]);
  assert.deepEqual(await two.list(), []);
  await assert.rejects(contentOf(two, first), { code: 'NOT_FOUND' });
  await assert.rejects(one.write(target(0, 5n), bytes('five')), {
    code: 'CONFLICT',
    message: /was removed at/,
  });
  const large = () => [new Uint8Array(3 * CHUNK)];
  await assert.rejects(one.write(target(0, 5n), large), { code: 'CONFLICT', message: /was removed at/ });
});

test('of writers racing for one level-0 name exactly one wins, and nothing of the others stays', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const one = await openBucketReplica(t, server);
  const two = await openBucketReplica(t, server);
  const races = process.env.JETLITE_LONG === '1' ? 500 : 100;
  for (let txid = 1n; txid <= races; txid++) {
    const size = txid % 10n === 0n ? CHUNK + 100 : 100;
    const contents = [randomBytes(size), randomBytes(size)];
    const results = await Promise.allSettled(
      [one, two].map((replica, i) => replica.write(target(0, txid), () => [contents[i]])),
    );
    const winner = results.findIndex((result) => result.status === 'fulfilled');
    const loser = results[1 - winner];
    assert.ok(loser.status === 'rejected' && loser.reason instanceof ConflictError, `race ${txid}`);
    const file = (await two.list(0)).at(-1)!;
    assert.equal(file.maxTxid, txid);
    assert.ok(contents[winner].equals(await bytesOf(one, file)), `race ${txid}`);
  }
  const connection = await connect({ servers: server.url });
  const { state } = await (await connection.jetstreamManager()).streams.info('OBJ_backups', {
    subjects_filter: '>',
  });
  await connection.close();
  assert.equal(Object.keys(state.subjects ?? {}).length, 2 * races);
});

test('what is removed in great number at a time is listed no more, by whoever has listed it', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const one = await openBucketReplica(t, server);
  const two = await openBucketReplica(t, server);
  for (let round = 0n; round < 3n; round++) {
    const files: LtxFileInfo[] = [];
    for (let i = 1n; i <= 20n; i++) files.push(await one.write(target(1, round * 20n + i), bytes('x')));
    assert.equal((await two.list()).length, 20);
    await one.remove(files);
    assert.deepEqual(await one.list(), []);
    assert.deepEqual(await two.list(), []);
  }
});

test('a writer that slept can neither replace nor remove what came after', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const awake = await openBucketReplica(t, server);
  const sleeper = await openBucketReplica(t, server);
  await awake.write(target(9, 1n, 4n), bytes('first'));
  const [seen] = await sleeper.list();
  const second = await awake.write(target(9, 1n, 4n), bytes('second'));
  const late = { ...target(9, 1n, 4n), replaces: seen.version! };
  await assert.rejects(sleeper.write(late, bytes('late')), ConflictError);
  await assert.rejects(sleeper.remove([seen]), ConflictError);
  await assert.rejects(contentOf(sleeper, seen), { code: 'NOT_FOUND' });
  assert.equal(await contentOf(sleeper, second), 'second');
  assert.deepEqual(await sleeper.list(), [second]);
});

test('a level-0 file below another writer’s higher one is refused before anything is put', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const one = await openBucketReplica(t, server);
  const two = await openBucketReplica(t, server);
  await one.write(target(0, 1n), bytes('one'));
  await two.write(target(0, 2n), bytes('two'));
  await one.write(target(0, 3n), bytes('three'));
  await two.list();
  await assert.rejects(two.write(target(0, 2n), bytes('late')), { code: 'CONFLICT', message: /above/ });
});

test('a watch is woken by the server for what others put, and lists what it missed', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const writer = await openBucketReplica(t, server, 'backups/p');
  const reader = await openBucketReplica(t, server, 'backups/p', { nats: { reconnectWaitMs: 50 } });
  const elsewhere = await openBucketReplica(t, server, 'backups/other');
  await writer.write(target(0, 1n), bytes('before'));
  const stop = new AbortController();
  const watching = reader.watch(stop.signal)[Symbol.asyncIterator]();
  assert.equal((await reader.list()).length, 1);
  await elsewhere.write(target(0, 2n), bytes('not here'));
  const second = await writer.write(target(0, 2n), bytes('two'));
  assert.deepEqual((await watching.next()).value, second);
  await server.kill();
  await server.restart();
  const third = await writer.write(target(0, 3n), bytes('three'));
  assert.deepEqual((await watching.next()).value, third);
  const end = watching.next();
  stop.abort();
  assert.equal((await end).done, true);
});

test('a source that fails half-way, or a signal, leaves nothing in the bucket', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const broken = async function* () {
    yield new Uint8Array(5 * CHUNK);
    throw new Error('source broke');
  };
  await assert.rejects(replica.write(target(0, 1n), broken), /source broke/);
  const abort = new AbortController();
  const stopped = async function* () {
    yield new Uint8Array(5 * CHUNK);
    abort.abort();
    yield new Uint8Array(5 * CHUNK);
  };
  await assert.rejects(replica.write(target(0, 1n), stopped, abort.signal), { code: 'ABORTED' });
  const connection = await connect({ servers: server.url });
  const { state } = await (await connection.jetstreamManager()).streams.info('OBJ_backups');
  await connection.close();
  assert.equal(state.messages, 0);
});
