import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { bytes, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite } from './run.js';

test('buckets are created, shown, listed and deleted', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const env = { NATS_URL: server.url };
  const settings = ['--max-bytes', '2GB', '--compression', '--description', 'of the shop'];
  const created = await jetlite(['bucket', 'create', 'backups', ...settings], { env });
  assert.equal(created.exitCode, 0, created.stderr);
  assert.match(
    created.stdout,
    /^bucket {7}backups\nreplicas {5}1\nstorage {6}file, compressed\nsize .* of 2\.0 GB\n/,
  );
  await makeBucket(server, 'others');
  const info = await jetlite(['bucket', 'info', 'backups', '--json', '--server', server.url]);
  const { created: _created, ...shown } = JSON.parse(info.stdout);
  assert.deepEqual(shown, {
    bucket: 'backups',
    description: 'of the shop',
    replicas: 1,
    storage: 'file',
    compression: true,
    max_bytes: 2e9,
    ttl_ms: 0,
    bytes: 0,
    unsafe: [],
  });
  const listed = await jetlite(['bucket', 'list', '--json'], { env });
  assert.deepEqual(
    JSON.parse(listed.stdout).map(({ bucket }: { bucket: string }) => bucket),
    ['backups', 'others'],
  );
  const replica = await openBucketReplica(t, server);
  await replica.write(target(0, 1n), bytes('content'));
  const kept = await jetlite(['bucket', 'delete', 'backups'], { env });
  assert.equal(kept.exitCode, 2);
  assert.match(kept.stderr, /deleting it deletes them\n.*--force/);
  const deleted = await jetlite(['bucket', 'delete', 'backups', '--force'], { env });
  assert.equal(deleted.exitCode, 0, deleted.stderr);
  const gone = await jetlite(['bucket', 'info', 'backups'], { env });
  assert.equal(gone.exitCode, 1);
  assert.match(
    gone.stderr,
    /there is no bucket backups at .*\n.*jetlite bucket create backups --server nats:/,
  );
});

test('a bucket that expires what it holds is written only if that is insisted on', async (t) => {
  const server = await startNatsServer(t);
  const shell = server && sqliteShell(t);
  if (server === undefined || shell === undefined) return;
  const env = { NATS_URL: server.url };
  const database = join(await scratchFolder(t), 'a.db');
  await shell.run(database, 'CREATE TABLE t(x);');
  const created = await jetlite(['bucket', 'create', 'passing', '--ttl', '1h'], { env });
  assert.equal(created.exitCode, 0, created.stderr);
  assert.match(created.stderr, /WARN .*replicas cannot live in a bucket whose objects expire/);
  const info = await jetlite(['bucket', 'info', 'passing'], { env });
  assert.match(info.stdout, /^unsafe {7}objects expire after 3600 s/m);
  const replica = 'nats:///passing';
  const commands = [
    ['backup', database, replica],
    ['replicate', '--once', database, replica],
    ['compact', '--snapshot', replica],
  ];
  for (const args of commands) {
    await shell.run(database, 'INSERT INTO t VALUES (1);');
    const refused = await jetlite(args, { env });
    assert.equal(refused.exitCode, 1);
    assert.match(
      refused.stderr,
      /can lose parts of a replica: objects expire after 3600 s.*\n?.*--allow-unsafe-bucket/,
    );
    const insisted = await jetlite([...args, '--allow-unsafe-bucket'], { env });
    assert.equal(insisted.exitCode, 0, insisted.stderr);
  }
});

test('a bucket that exists with other settings, and settings that cannot be, are refused', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const env = { NATS_URL: server.url };
  await makeBucket(server, 'backups');
  assert.equal((await jetlite(['bucket', 'create', 'backups'], { env })).exitCode, 0);
  const other = await jetlite(['bucket', 'create', 'backups', '--max-bytes', '1GB'], { env });
  assert.equal(other.exitCode, 1);
  assert.match(other.stderr, /there is one with other settings/);
  const cases: [string[], RegExp][] = [
    [['create', 'b', '--replicas', '2'], /--replicas: expected 1, 3 or 5/],
    [['create', 'b', '--storage', 'tape'], /--storage: expected file or memory/],
    [['create', 'b', '--max-bytes', 'lots'], /--max-bytes: expected a size/],
    [['create', 'b', '--ttl', 'soon'], /--ttl: expected a duration/],
    [['create', 'b.c'], /"b\.c" cannot name a bucket/],
    [['create'], /which bucket/],
    [['list', 'b'], /list shows all buckets.*\n.*bucket info b/],
    [['info', 'b', '--replicas', '3'], /--replicas is for bucket create, not for bucket info/],
    [['delete', 'b', '--compression'], /--compression is for bucket create/],
    [['create', 'b', '--force'], /--force is for bucket delete/],
    [['frobnicate', 'b'], /action/i],
  ];
  for (const [args, message] of cases) {
    const run = await jetlite(['bucket', ...args], { env });
    assert.match(run.stderr, message);
    assert.equal(run.exitCode, 2, args.join(' '));
  }
  const three = await jetlite(['bucket', 'create', 'wide', '--replicas', '3'], { env });
  assert.equal(three.exitCode, 1);
  assert.match(three.stderr, /cannot create the bucket: .*the server is no member of one .*\n.*of a cluster/);
});

test('what somebody wrote into a description does not reach the terminal as it is', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const env = { NATS_URL: server.url };
  const description = 'a\u001b[2J\nb';
  await jetlite(['bucket', 'create', 'backups', '--description', description], { env });
  for (const action of [['list'], ['info', 'backups']]) {
    const { stdout } = await jetlite(['bucket', ...action], { env });
    assert.match(stdout, /a\ufffd\[2J\ufffdb$/m);
    assert.ok(!stdout.includes('\u001b'));
  }
});

test('an address in the place of a name is refused before any server is asked', async () => {
  const refused = await jetlite(['bucket', 'create', 'nats://me:s3cret@127.0.0.1:1/backups']);
  assertRefused(refused, 2, /takes the name of a bucket, found an address/);
  assert.doesNotMatch(refused.stderr, /s3cret/);
});

test('a bucket in the address of the server is refused in words that a reader understands', async () => {
  const run = await jetlite(['bucket', 'info', 'x', '--server', 'nats://localhost:1/backups']);
  assert.equal(run.exitCode, 2);
  assert.match(
    run.stderr,
    /expected the address of a NATS server, found nats:.*\n.*nats:\/\/HOST:PORT, without a bucket/,
  );
});
