/** Metas in a bucket that are none, or lie: their names are taken all the same, and nobody waits or trips over them. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, type NatsConnection } from 'nats';
import { ConflictError } from '../../lib/errors.js';
import { holdLease } from '../../lib/jobs/tidy/lease.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { Replica } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { bytes, contentOf, sizedBytes, target } from '../support/replica.js';

/** What stands where the meta of an object of that name should, and is none. */
const NO_METAS: Record<string, (name: string) => string> = {
  'no JSON': () => 'no JSON',
  nothing: () => '',
  null: () => 'null',
  'a list': () => '[]',
  'another name': () => JSON.stringify({ name: 'another', nuid: 'N1', size: 1, chunks: 1 }),
  'a negative size': (name) => JSON.stringify({ name, nuid: 'N2', size: -1, chunks: 1 }),
  'half a chunk': (name) => JSON.stringify({ name, nuid: 'N3', size: 1, chunks: 0.5 }),
  'a size beyond all numbers': (name) => `{"name":"${name}","nuid":"N4","size":1e999,"chunks":1}`,
  'a nuid that is a wildcard': (name) => JSON.stringify({ name, nuid: '>', size: 1, chunks: 1 }),
  'a digest that is a number': (name) => JSON.stringify({ name, nuid: 'N5', size: 1, chunks: 1, digest: 5 }),
  'a link': (name) => JSON.stringify({ name, nuid: '', options: { link: { bucket: 'other' } } }),
};

interface Stage {
  readonly replica: Replica;
  readonly connection: NatsConnection;
  put(name: string, meta: string): Promise<void>;
}

async function openStage(t: Parameters<typeof startNatsServer>[0]): Promise<Stage | undefined> {
  const server = await startNatsServer(t);
  if (server === undefined) return undefined;
  await makeBucket(server);
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const put = async (name: string, meta: string): Promise<void> => {
    const encoded = Buffer.from(name).toString('base64url');
    const token = encoded.padEnd(Math.ceil(encoded.length / 4) * 4, '=');
    await connection.jetstream().publish(`$O.backups.M.${token}`, meta);
  };
  return { replica: await openBucketReplica(t, server), connection, put };
}

test('a level-0 name under which stands what is no meta is taken', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  let txid = 0n;
  for (const [what, metaOf] of Object.entries(NO_METAS)) {
    const next = target(0, ++txid);
    await stage.put(ltxPath(next), metaOf(ltxPath(next)));
    await assert.rejects(stage.replica.write(next, bytes('ours')), (error) => {
      assert.ok(error instanceof ConflictError, `${what}: ${error}`);
      assert.match(error.message, /holds what is no object, and was put by another program at 20/);
      return true;
    });
  }
  assert.deepEqual(await stage.replica.list(), []);
});

test('what is no meta is replaced by a merge, and can be removed', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, put } = stage;
  let txid = 0n;
  for (const [what, metaOf] of Object.entries(NO_METAS)) {
    const next = target(1, ++txid);
    await put(ltxPath(next), metaOf(ltxPath(next)));
    if (txid % 2n === 0n) await replica.remove([{ ...next, size: 0 }]);
    const file = await replica.write(next, bytes(what));
    assert.equal(await contentOf(replica, file), what);
  }
  assert.equal((await replica.list(1)).length, Object.keys(NO_METAS).length);
});

test('a lease that is none expires like any other', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, put } = stage;
  await put('jetlite/lease', 'no JSON');
  const clock = await replica.clock();
  const busy = await holdLease(replica, async () => 'done');
  assert.deepEqual(busy, { kind: 'busy', holder: 'an unknown program' });
  replica.clock = async () => clock + 31_000;
  assert.deepEqual(await holdLease(replica, async () => 'done'), { kind: 'done', value: 'done' });
});

test('a file over whose meta something else was put is listed no more, neither live nor anew', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, put } = stage;
  const kept = await replica.write(target(1, 1n), sizedBytes('kept'));
  for (const metaOf of Object.values(NO_METAS)) {
    const next = target(1, 2n);
    const file = await replica.write(next, sizedBytes('lost'));
    assert.deepEqual(await replica.list(), [kept, file]);
    await put(ltxPath(next), metaOf(ltxPath(next)));
    assert.deepEqual(await replica.list(), [kept]);
    const { files, flaws } = await replica.audit!([kept, file]);
    assert.deepEqual(files, [kept]);
    assert.deepEqual(
      flaws.map(({ kind }) => kind),
      ['replaced'],
    );
    await assert.rejects(contentOf(replica, file), { code: 'NOT_FOUND' });
  }
});

test('a digest that is no SHA-256, counts that cannot be, and odd headers harm nobody but their own object', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, connection, put } = stage;
  const kept = await replica.write(target(0, 1n), bytes('kept'));
  const lies: Record<string, unknown>[] = [
    { digest: 'SHA-512=AAAA' },
    { digest: 'x'.repeat(10_000) },
    { chunks: 2 ** 53 - 1 },
    { chunks: 0 },
    { size: 2 ** 53 - 1 },
    { options: 5 },
    { options: { max_chunk_size: -5 }, size: 3 },
    { headers: 'none', size: 3 },
    { headers: { 'Litestream-Timestamp': [7], 'Jetlite-Writer': { a: 1 } }, size: 3 },
    { headers: { 'Litestream-Timestamp': ['+275760-09-13T00:00:00Z'] }, size: 3 },
  ];
  for (const [i, lie] of lies.entries()) {
    const name = ltxPath(target(1, BigInt(i + 1)));
    await connection.jetstream().publish(`$O.backups.C.L${i}`, 'four');
    await put(name, JSON.stringify({ name, nuid: `L${i}`, size: 4, chunks: 1, ...lie }));
  }
  const long = 'n'.repeat(2500);
  await put(long, JSON.stringify({ name: long, nuid: 'L', size: 4, chunks: 1 }));
  const listed = await replica.list();
  assert.deepEqual(
    listed.map(({ maxTxid }) => Number(maxTxid)),
    [1, ...lies.map((_, i) => i + 1)],
  );
  for (const [i, file] of listed.slice(1).entries()) {
    const expected = 'options' in lies[i] && !('size' in lies[i]) ? undefined : { code: 'FORMAT' };
    if (expected === undefined) assert.equal(await contentOf(replica, file), 'four');
    else await assert.rejects(contentOf(replica, file), expected, JSON.stringify(lies[i]).slice(0, 80));
  }
  assert.equal(await contentOf(replica, kept), 'kept');
  await replica.remove(listed.slice(1));
  assert.deepEqual(await replica.list(), [kept]);
});

test('the name that a meta gives its writer cannot break out of a message', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const name = ltxPath(target(0, 1n));
  const writer = '\x1b[2Jnobody\n2026 INFO all is well\u202e'.padEnd(5000, '!');
  await stage.put(
    name,
    JSON.stringify({ name, nuid: 'W', size: 0, headers: { 'Jetlite-Writer': [writer] } }),
  );
  const [listed] = await stage.replica.list();
  assert.match(listed.writer ?? '', /^\ufffd\[2Jnobody\ufffd2026 INFO all is well\ufffd!{1,200}$/);
  await assert.rejects(stage.replica.write(target(0, 1n), bytes('ours')), (error: Error) => {
    assert.match(error.message, /was put by \ufffd\[2Jnobody/);
    assert.doesNotMatch(error.message, /\p{C}/u);
    return true;
  });
});
