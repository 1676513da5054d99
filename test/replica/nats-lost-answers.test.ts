/** Answers of the server that get lost on the way: what was stored is recognised, what was not is put again, once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from 'nats';
import { ConflictError, LeaseLostError } from '../../lib/errors.js';
import { openReplica } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import { type Fate, startNatsProxy } from '../support/nats-proxy.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { bytes, bytesOf, contentOf, target } from '../support/replica.js';

/** The largest message, and what of it becomes a chunk. */
const MAX_PAYLOAD = 64 * 1024;
const CHUNK = 63 * 1024;
const FATES = ['drop', 'cut before', 'swallow answer', 'cut answer'] as const;

interface Stage {
  readonly server: NatsServer;
  /** Goes by the proxy. */
  readonly replica: Replica;
  /** Goes straight to the server. */
  readonly direct: Replica;
  /** The fate of the `nth` message, from 1, to a subject of the kind; all others pass. */
  lose(kind: 'C' | 'M' | 'PURGE', nth: number, fate: Fate, then?: () => void): void;
  /** The next object, of one chunk, arrives when it was given up, just before the meta of the second try. */
  late(): void;
}

async function openStage(t: Parameters<typeof startNatsServer>[0]): Promise<Stage | undefined> {
  const server = await startNatsServer(t, { config: `max_payload: ${MAX_PAYLOAD}` });
  if (server === undefined) return undefined;
  await makeBucket(server);
  let wish: { kind: string; left: number; fate: Fate; then?: (() => void) | undefined } | undefined;
  let lateness = 0;
  const proxy = await startNatsProxy(t, server, (subject) => {
    if (lateness > 0 && /^\$O\.backups\.[CM]\./.test(subject)) {
      lateness--;
      return lateness > 1 ? 'hold' : lateness === 1 ? 'pass' : 'release';
    }
    const kind = subject.startsWith('$JS.API.STREAM.PURGE') ? 'PURGE' : subject.split('.')[2];
    if (wish === undefined || wish.kind !== kind || --wish.left > 0) return 'pass';
    const { fate, then } = wish;
    wish = undefined;
    then?.();
    return fate;
  });
  const replica = await openReplica(`${proxy.url}/backups`, {
    env: {},
    nats: { timeoutMs: 500, reconnectWaitMs: 20 },
  });
  t.after(() => replica.close());
  return {
    server,
    replica,
    direct: await openBucketReplica(t, server),
    lose: (kind, nth, fate, then) => {
      wish = { kind, left: nth, fate, then };
    },
    late: () => {
      lateness = 4;
    },
  };
}

/** Messages by subject. */
async function subjectsOf(server: NatsServer): Promise<Record<string, number>> {
  const connection = await connect({ servers: server.url });
  const { state } = await (await connection.jetstreamManager()).streams.info('OBJ_backups', {
    subjects_filter: '>',
  });
  await connection.close();
  return state.subjects ?? {};
}

/** Every object has one meta and its chunks, and nothing else is there. */
async function assertNothingElse(server: NatsServer, metas: number, chunks: number): Promise<void> {
  const subjects = Object.entries(await subjectsOf(server));
  const of = (kind: string) => subjects.filter(([subject]) => subject.startsWith(`$O.backups.${kind}.`));
  assert.deepEqual(
    of('M').map(([, count]) => count),
    Array.from({ length: metas }, () => 1),
  );
  assert.equal(of('C').length, metas);
  assert.equal(
    of('C').reduce((sum, [, count]) => sum + count, 0),
    chunks,
  );
}

test('a small object whose chunk or meta, or the answer to it, gets lost is put once', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, lose } = stage;
  let txid = 0n;
  for (const kind of ['C', 'M'] as const) {
    for (const fate of FATES) {
      txid++;
      lose(kind, 1, fate);
      const file = await replica.write(target(0, txid), bytes(`content of ${txid}`));
      assert.deepEqual((await direct.list()).at(-1), file, `${kind} ${fate}`);
      assert.equal(await contentOf(direct, file), `content of ${txid}`);
    }
  }
  await assertNothingElse(server, 8, 8);
});

test('an object of many chunks of which one, or the meta, or the answer to it, gets lost is put once', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, lose } = stage;
  let txid = 0n;
  for (const [kind, nth] of [
    ['C', 1],
    ['C', 5],
    ['C', 20],
    ['M', 1],
  ] as const) {
    for (const fate of FATES) {
      txid++;
      const content = Buffer.concat(
        Array.from({ length: 20 }, (_, i) => Buffer.alloc(CHUNK, Number(txid) * 20 + i)),
      );
      lose(kind, nth, fate);
      const file = await replica.write(target(0, txid), () => [content]);
      assert.deepEqual((await direct.list()).at(-1), file, `${kind} ${nth} ${fate}`);
      assert.ok(content.equals(await bytesOf(direct, file)), `${kind} ${nth} ${fate}`);
    }
  }
  await assertNothingElse(server, 16, 320);
});

test('where the answer to a meta got lost and another writer has the name, that is a conflict', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, lose } = stage;
  let theirs: Promise<unknown> = Promise.resolve();
  lose('M', 1, 'cut before', () => {
    theirs = direct.write(target(0, 1n), bytes('theirs'));
  });
  await assert.rejects(replica.write(target(0, 1n), bytes('ours')), ConflictError);
  await theirs;
  assert.equal(await contentOf(direct, (await direct.list())[0]), 'theirs');
  await assertNothingElse(server, 1, 1);
});

test('a removal whose mark, purge or answer gets lost has removed the object and its chunks', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, lose } = stage;
  let txid = 0n;
  for (const kind of ['M', 'PURGE'] as const) {
    for (const fate of FATES) {
      txid++;
      const file = await replica.write(target(1, txid), bytes('to be removed'));
      lose(kind, 1, fate);
      await replica.remove([file]);
      assert.deepEqual(await direct.list(), [], `${kind} ${fate}`);
    }
  }
  const left = Object.keys(await subjectsOf(server));
  assert.deepEqual(
    left.filter((subject) => subject.startsWith('$O.backups.C.')),
    [],
  );
});

test('under a lease, a replacement whose answer gets lost stands once, and the lease still holds', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, lose } = stage;
  const lease = await replica.writeExtra('lease', Buffer.from('ours'), 'nothing');
  let round = 0;
  for (const kind of ['C', 'M'] as const) {
    for (const fate of FATES) {
      round++;
      lose(kind, 1, fate);
      const put = () => replica.write({ ...target(1, 1n, 5n), lease }, bytes(`round ${round}`));
      // Where nobody knows whether the meta was taken, nothing more is done: the next round looks again.
      const file = await put().catch(put);
      assert.deepEqual(await direct.list(1), [file], `${kind} ${fate}`);
      assert.equal(await contentOf(direct, file), `round ${round}`);
    }
  }
  assert.equal((await replica.readExtra('lease'))?.version, lease);
  const metas = Object.entries(await subjectsOf(server)).filter(([subject]) =>
    subject.startsWith('$O.backups.M.'),
  );
  assert.deepEqual(
    metas.map(([, count]) => count),
    [1, 1],
  );
});

test('a put that was given up and arrives late is success if its bytes are those put last, else a conflict', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct, late } = stage;
  late();
  const same = await replica.write(target(0, 1n), bytes('the same'));
  assert.deepEqual(await direct.list(), [same]);
  await assertNothingElse(server, 1, 1);

  late();
  let tries = 0;
  const changing = () => [Buffer.from(`try ${++tries}`)];
  await assert.rejects(replica.write(target(0, 2n), changing), ConflictError);
  assert.equal(tries, 2);
  const [, second] = await direct.list();
  assert.equal(await contentOf(direct, second), 'try 1');
  assert.ok(replica.isOwn(second));
  await assertNothingElse(server, 2, 2);
});

test('a name under which a late put stands that lost its chunk is put anew', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, direct } = stage;
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const manager = await connection.jetstreamManager();
  const first = await direct.write(target(0, 1n), bytes('content'));
  const { nuid } = (await manager.streams.getMessage('OBJ_backups', { seq: 2 })).json<{ nuid: string }>();
  await manager.streams.purge('OBJ_backups', { filter: `$O.backups.C.${nuid}` });
  await assert.rejects(contentOf(direct, first), { code: 'FORMAT' });
  const file = await replica.write(target(0, 1n), bytes('content'));
  assert.equal(await contentOf(direct, file), 'content');
  await assertNothingElse(server, 1, 1);
});

test('a put under a lease that was lost on the way is refused by the server, however late it arrives', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, direct, lose } = stage;
  const lease = await replica.writeExtra('lease', Buffer.from('ours'), 'nothing');
  let taken: Promise<string> | undefined;
  lose('M', 1, 'hold', () => {
    taken = direct.writeExtra('lease', Buffer.from('theirs'), lease);
  });
  // The meta of a single chunk would be refused for the chunk's sake, too.
  const chunks = () => [new Uint8Array(2 * CHUNK)];
  await assert.rejects(replica.write({ ...target(1, 1n, 5n), lease }, chunks), LeaseLostError);
  assert.equal((await direct.readExtra('lease'))?.version, await taken);
  lose('M', 1, 'release');
  await replica.writeExtra('another', Buffer.from('what was held goes first'));
  assert.deepEqual(await direct.list(), []);
});
