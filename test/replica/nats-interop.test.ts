/** Objects that others wrote, read by us, and ours read by them: the `nats` package's ObjectStore and Litestream. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'nats';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { ltxPath } from '../../lib/replica/names.js';
import { realLitestream } from '../support/litestream.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { peer } from '../support/peers.js';
import { bytesOf, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';

const CHUNK = 512 * 1024;

test('the nats package’s ObjectStore reads, lists and deletes what we put', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups/p');
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const store = await connection.jetstream().views.os('backups');
  for (const [i, size] of [0, 1, CHUNK, 3 * CHUNK + 7].entries()) {
    const content = randomBytes(size);
    const file = await replica.write(target(1, BigInt(i + 1)), () => [content]);
    const name = `p/${ltxPath(file)}`;
    assert.ok(content.equals((await store.getBlob(name)) ?? Buffer.alloc(0)), `${size} bytes`);
    const info = await store.info(name);
    assert.equal(info?.size, size);
    assert.equal(info?.headers?.get('Litestream-Timestamp'), new Date(file.timestampMs).toISOString());
  }
  assert.equal((await store.list()).length, 4);
  const [first, second] = await replica.list();
  await replica.remove([first]);
  assert.equal((await store.list()).length, 3);
  await store.delete(`p/${ltxPath(second)}`);
  assert.equal((await replica.list()).length, 2);
});

test('what the nats package’s ObjectStore put is listed and read by us, whole and in ranges', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const connection = await connect({ servers: server.url });
  t.after(() => connection.close());
  const store = await connection.jetstream().views.os('backups');
  const contents = new Map<string, Buffer>();
  for (const [i, size] of [0, 1, 128 * 1024, 1_000_003].entries()) {
    const name = ltxPath(target(0, BigInt(i + 1)));
    contents.set(name, randomBytes(size));
    await store.putBlob({ name }, contents.get(name)!);
  }
  await store.putBlob({ name: 'ltx/0/unknown' }, randomBytes(10));
  await store.link(ltxPath(target(0, 99n)), (await store.info(ltxPath(target(0, 1n))))!);
  const replica = await openBucketReplica(t, server);
  const files = await replica.list();
  assert.equal(files.length, 4);
  for (const file of files) {
    const content = contents.get(ltxPath(file))!;
    assert.ok(content.equals(await bytesOf(replica, file)), ltxPath(file));
    const offset = Math.floor(file.size * 0.8);
    const part = await bytesOf(replica, file, { offset, length: 200_000 });
    assert.ok(content.subarray(offset, offset + 200_000).equals(part), ltxPath(file));
  }
});

test('the nats command-line tool reads and lists what we put, and we what it put', async (t) => {
  const program = peer(t, 'nats');
  const server = program === undefined ? undefined : await startNatsServer(t);
  if (program === undefined || server === undefined) return;
  const folder = await scratchFolder(t);
  // Neither contexts nor history of whoever runs this.
  const env = { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, NATS_URL: '' };
  const tool = (...args: string[]) =>
    execFileSync(program, ['--server', server.url, 'object', ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    }).toString();
  tool('add', 'backups');
  const replica = await openBucketReplica(t, server, 'backups/p');
  const contents = [randomBytes(1), randomBytes(3 * CHUNK + 7)];
  for (const [i, content] of contents.entries()) {
    const file = await replica.write(target(0, BigInt(i + 1)), () => [content]);
    const output = join(folder, `ours${i}`);
    tool('get', 'backups', `p/${ltxPath(file)}`, '--output', output, '--no-progress', '--force');
    assert.ok(content.equals(await readFile(output)), `${content.length} bytes`);
  }
  assert.match(tool('ls', 'backups'), /p\/ltx\/0\/0000000000000002-0000000000000002\.ltx/);
  const theirs = randomBytes(1_000_003);
  const name = `p/${ltxPath(target(0, 3n))}`;
  await writeFile(join(folder, 'theirs'), theirs);
  tool('put', 'backups', join(folder, 'theirs'), '--name', name, '--no-progress', '--force');
  const files = await replica.list(0);
  assert.equal(files.length, 3);
  assert.ok(theirs.equals(await bytesOf(replica, files[2])));
  assert.ok(
    theirs
      .subarray(700_000, 700_100)
      .equals(await bytesOf(replica, files[2], { offset: 700_000, length: 100 })),
  );
  tool('rm', 'backups', name, '--force');
  assert.equal((await replica.list(0)).length, 2);
});

test('a range is found among the chunks of objects that were put at the same time', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server);
  const contents = Array.from({ length: 4 }, () => randomBytes(6 * CHUNK + 1000));
  const slowly = async function* (content: Buffer) {
    for (let at = 0; at < content.length; at += CHUNK) {
      yield content.subarray(at, at + CHUNK);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const files = await Promise.all(
    contents.map((content, i) => replica.write(target(1, BigInt(i + 1)), () => slowly(content))),
  );
  for (const [i, file] of files.entries()) {
    for (const offset of [0, CHUNK + 3, 4 * CHUNK, 6 * CHUNK + 10]) {
      const part = await bytesOf(replica, file, { offset, length: 1000 });
      assert.ok(contents[i].subarray(offset, offset + 1000).equals(part), `object ${i} from ${offset}`);
    }
  }
});

test('Litestream’s files are listed with their times and decode to their last byte; ours are restored by it', async (t) => {
  const litestream = realLitestream(t);
  const sqlite3 = peer(t, 'sqlite3');
  const server = await startNatsServer(t);
  if (litestream === undefined || sqlite3 === undefined || server === undefined) return;
  await makeBucket(server, 'theirs');
  await makeBucket(server, 'ours');
  const folder = await scratchFolder(t);
  const database = join(folder, 'app.db');
  const sql = (text: string) => execFileSync(sqlite3, ['-cmd', '.timeout 10000', database, text]).toString();
  sql('PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(3000000));');
  const running = await litestream.replicate(database, `${server.url}/theirs`);
  sql('INSERT INTO t VALUES (randomblob(100));');
  const theirs = await openBucketReplica(t, server, 'theirs');
  for await (const file of theirs.watch(AbortSignal.timeout(20_000))) if (file.maxTxid > 1n) break;
  await running.stop();
  const files = await theirs.list();
  const listed = await litestream.files(`${server.url}/theirs`);
  assert.deepEqual(
    files.map((file) => [file.level, formatTxid(file.minTxid), formatTxid(file.maxTxid), file.size]),
    listed.map((file) => [file.level, file.minTxid, file.maxTxid, file.size]).sort(),
  );
  const ours = await openBucketReplica(t, server, 'ours');
  for (const file of files) {
    const decoded = await decodeLtx(ltxPath(file), theirs.read(file), {});
    assert.equal(decoded.bytes, file.size);
    assert.equal(decoded.header.timestampMs, file.timestampMs);
    await ours.write(file, () => theirs.read(file));
  }
  const restored = join(folder, 'restored.db');
  await litestream.restore(`${server.url}/ours`, restored);
  const dump = (path: string) => execFileSync(sqlite3, [path, '.dump'], { maxBuffer: 1e8 }).toString();
  assert.equal(dump(restored), dump(database));
});
