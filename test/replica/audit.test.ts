/** What a home tells of files it acknowledged and then lost: servers whose stores were damaged, folders that were cut. */

import assert from 'node:assert/strict';
import { truncate, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'nats';
import { openFileReplica } from '../../lib/replica/file.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { FileFlaw, LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { copyStore, flipBitBehind, truncateBlock } from '../support/nats-store.js';
import { bytesOf, contentOf, sizedBytes, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';

interface Test {
  after(done: () => Promise<void>): void;
  skip(message?: string): void;
}

interface Stage {
  readonly server: NatsServer;
  readonly replica: Replica;
  /** Level-0 files 1 to 20; each is 4,000 bytes that begin with `content of TXID `. */
  readonly files: LtxFileInfo[];
}

function content(txid: bigint): Buffer {
  return Buffer.alloc(4000, txid.toString(16)).fill(`content of ${txid} `, 0, 16);
}

async function put(replica: Replica, from: bigint, to: bigint): Promise<LtxFileInfo[]> {
  const files: LtxFileInfo[] = [];
  for (let txid = from; txid <= to; txid++) {
    files.push(await replica.write(target(0, txid), () => [content(txid)]));
  }
  return files;
}

async function openStage(t: Test): Promise<Stage | undefined> {
  const server = await startNatsServer(t);
  if (server === undefined) return undefined;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 20 } });
  return { server, replica, files: await put(replica, 1n, 20n) };
}

async function flawsOf(replica: Replica, remembered: readonly LtxFileInfo[] = []): Promise<string[]> {
  const { flaws } = await replica.audit!(remembered);
  return flaws.map(({ file, kind }: FileFlaw) => `${kind} ${file.level}/${file.maxTxid}`);
}

function missing(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => `missing 0/${from + i}`);
}

test('a bucket in use has no flaws: not while files are put, replaced and removed, nor when listings lag', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, files } = stage;
  const other = await openBucketReplica(t, server);
  let done = false;
  const busy = (async () => {
    for (let txid = 21n; !done; txid++) {
      await replica.write(target(0, txid), () => [content(txid)]);
      const merged = await replica.write(target(1, 1n, 9n), () => [content(txid)]);
      if (txid % 3n === 0n) await replica.remove([merged]);
    }
  })();
  for (let i = 0; i < 10; i++) assert.deepEqual(await flawsOf(other, files), []);
  done = true;
  await busy;
  const { files: listed } = await other.audit!();
  assert.deepEqual(listed, await replica.list());
});

test('a store that was rolled back lacks what came after, and its names can be had again', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, files } = stage;
  await server.kill();
  const rollBack = await copyStore(server);
  await server.restart();
  const later = await put(replica, 21n, 25n);
  await server.kill();
  await rollBack();
  await server.restart();
  assert.deepEqual(await flawsOf(replica, [...files, ...later]), missing(21, 25));
  const again = await put(replica, 21n, 25n);
  assert.deepEqual(await flawsOf(replica, [...files, ...later]), []);
  assert.equal(again[4].digest, later[4].digest);
});

test('what a truncated block held is missing', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, files } = stage;
  await server.kill();
  await truncateBlock(server, 0.52);
  await server.restart();
  assert.deepEqual(await flawsOf(replica, files), missing(11, 20));
});

test('a flipped bit that the server finds when it recovers costs the rest of the block', async (t) => {
  for (const text of ['content of 7 ', '"name":"ltx/0/0000000000000007']) {
    const stage = await openStage(t);
    if (stage === undefined) return;
    const { server, replica, files } = stage;
    await server.kill();
    await flipBitBehind(server, text);
    await server.restart();
    assert.deepEqual(await flawsOf(replica, files), missing(7, 20));
  }
});

test('a flipped bit that the server did not look for makes no reader and no listing wait for ever', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica } = stage;
  const MIB = 1024 * 1024;
  const large = Buffer.concat([Buffer.alloc(MIB, 1), Buffer.from('the third chunk'), Buffer.alloc(MIB, 2)]);
  const merged = await replica.write(target(1, 1n, 20n), () => [large]);
  const files = await replica.list();
  await server.stop();
  await flipBitBehind(server, 'content of 7 ');
  await flipBitBehind(server, '"name":"ltx/0/0000000000000009');
  await flipBitBehind(server, 'the third chunk');
  await server.restart();
  assert.deepEqual(await flawsOf(replica, files), ['missing 0/9']);
  const [seventh] = (await replica.list()).filter(({ maxTxid }) => maxTxid === 7n);
  await assert.rejects(contentOf(replica, seventh), { code: 'FORMAT', message: /cannot read/ });
  const range = { offset: MIB / 4, length: MIB };
  await assert.rejects(bytesOf(replica, merged, range), { code: 'FORMAT', message: /cannot read chunk 3/ });
  await replica.write(target(0, 9n), () => [content(9n)]);
  assert.deepEqual(await flawsOf(replica, files), []);
});

test('a bucket that was made anew has nothing, and what is put into it again is what was there', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, files } = stage;
  const connection = await connect({ servers: server.url });
  await (await connection.jetstreamManager()).streams.delete('OBJ_backups');
  await connection.close();
  await makeBucket(server);
  assert.deepEqual(await flawsOf(replica, files), missing(1, 20));
  await put(replica, 1n, 20n);
  assert.deepEqual(await flawsOf(replica, files), []);
});

test('an object without all its chunks is damaged; removed is not lost; other bytes are not the same file', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica, files } = stage;
  const merged = await replica.write(target(1, 1n, 4n), sizedBytes('one to four'));
  const replaced = await replica.write(target(1, 5n, 8n), sizedBytes('five to eight'));
  const other = await openBucketReplica(t, server);
  await other.remove(files.slice(0, 2));
  await other.write(target(1, 1n, 4n), sizedBytes('one to four'));
  await other.write(target(1, 5n, 8n), sizedBytes('five or eight'));
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  await (await connection.jetstreamManager()).streams.purge('OBJ_backups', {
    filter: `$O.backups.C.${files[4].version?.split(':')[1]}`,
  });
  const flaws = await flawsOf(replica, [...files, merged, replaced]);
  assert.deepEqual(flaws.sort(), ['damaged 0/5', 'removed 0/1', 'removed 0/2', 'replaced 1/8']);
});

test('of a folder, files that are gone, cut, emptied or others are told', async (t) => {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(folder);
  const files = await put(replica, 1n, 6n);
  assert.deepEqual(await flawsOf(replica, files), []);
  const path = (txid: number): string => join(folder, ltxPath(files[txid - 1]));
  await unlink(path(1));
  await truncate(path(2), 1000);
  await truncate(path(3), 0);
  await writeFile(path(4), Buffer.alloc(5000));
  const expected = ['damaged 0/2', 'damaged 0/3', 'gone 0/1', 'replaced 0/4'];
  assert.deepEqual((await flawsOf(replica, files)).sort(), expected);
});
