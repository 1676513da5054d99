/** Users that may not do everything: what a bucket needs, and what is said where something is missing. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createBucket } from '../../lib/replica/nats/bucket.js';
import { connectNats } from '../../lib/replica/nats/connect.js';
import { assertRefused, jetlite, startJetlite } from '../cli/run.js';
import { assertIntact, blocks } from '../support/blocks.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { bytes, contentOf, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

/** More than a server sends without an answer to its flow control, in MiB. */
const MUCH = 12;

// Seen from dist/test/replica.
const README = await readFile(fileURLToPath(new URL('../../../README.md', import.meta.url)), 'utf8');

/** The user of the README's example, another that lacks what only writing needs, and one that may do everything. */
function readmeUsers(): string {
  const users = /^```hcl test=permissions\nauthorization \{\n {2}users: \[\n(.*?)^ {2}\]\n\}\n```$/ms.exec(
    README,
  )?.[1];
  assert.ok(users, 'the README has no example of permissions');
  const reader = users
    .replaceAll('user: myuser', 'user: reader')
    .replace(/( *"\$JS\.API\.CONSUMER\.MSG\.NEXT.*?)(?= *\])/s, '');
  assert.ok(!reader.includes('$O.'));
  return `authorization { users: [ ${users} ${reader} { user: admin, password: mypassword } ] }`;
}

async function serverWith(t: TestContext, config: string): Promise<NatsServer | undefined> {
  const server = await startNatsServer(t, { config });
  if (server === undefined) return undefined;
  const login = { username: 'admin', password: 'mypassword' };
  const link = await connectNats({ hosts: [`127.0.0.1:${server.port}`], tls: false }, login, {});
  try {
    await createBucket(link, 'backups');
  } finally {
    await link.close();
  }
  return server;
}

function as(server: NatsServer, user: string): { readonly url: string } {
  return { url: server.url.replace('//', `//${user}:mypassword@`) };
}

test('the permissions that the README names are enough for everything that is done in a bucket', async (t) => {
  const sqlite = sqliteShell(t);
  const server = sqlite && (await serverWith(t, readmeUsers()));
  if (!server) return;
  const folder = await scratchFolder(t);
  const app = join(folder, 'app.db');
  const fill = `INSERT INTO note SELECT randomblob(1048576) FROM generate_series(1, ${MUCH});`;
  await sqlite.run(app, `PRAGMA journal_mode = wal; CREATE TABLE note (data); ${fill}`);
  const replica = `${as(server, 'myuser').url}/backups`;
  const done = async (...args: string[]): Promise<void> => {
    const { exitCode, stderr } = await jetlite(args, { cwd: folder });
    assert.equal(exitCode, 0, `${args[0]}: ${stderr}`);
  };
  await done('backup', 'app.db', replica);
  const replicating = startJetlite(['replicate', 'app.db', replica], { cwd: folder });
  await replicating.shows(/replicating/);
  await sqlite.run(app, `${fill} UPDATE note SET data = 1 WHERE rowid = 1;`);
  replicating.child.kill('SIGTERM');
  assert.equal((await replicating.ended).exitCode, 0, replicating.said.stderr);
  await done('compact', replica, '--snapshot', '--retain');
  await done('replicate', 'app.db', replica, '--once', '--force-snapshot', '--enforce-retention');
  await done('verify', '--audit', replica);
  await done('restore', '-o', 'all.db', replica);
  assert.deepEqual(await sqlite.differences(app, join(folder, 'all.db')), []);
  const readOnly = `${as(server, 'reader').url}/backups`;
  await done('restore', '-o', 'read.db', readOnly);
  await done('verify', readOnly, '--against', 'app.db');
  await done('verify', '--audit', readOnly);
  await done('ltx', readOnly);
  assert.equal(denied(server), '');
});

test('they are enough to merge, replace and remove, too', async (t) => {
  const server = await serverWith(t, readmeUsers());
  if (server === undefined) return;
  const replica = await openBucketReplica(t, as(server, 'myuser'), 'backups/app');
  const large = await replica.write(target(1, 1n), blocks(MUCH, 1));
  await assertIntact(replica, large, MUCH, 1);
  let size = 0;
  for await (const part of replica.read(large, undefined, { onDemand: true })) size += part.length;
  assert.equal(size, large.size);
  const own = await replica.write(target(0, 2n), bytes('two'));
  assert.equal(await contentOf(replica, own, { offset: 1, length: 1 }), 'w');
  assert.equal(await replica.takeBack([own]), 1);
  const version = await replica.writeExtra('lease', Buffer.from('mine'));
  await replica.writeExtra('lease', Buffer.from('mine still'), version);
  await replica.remove([large]);
  await replica.sweep?.(((await replica.readExtra('lease')) ?? { version: '' }).version);
  await replica.removeExtra('lease');
  assert.deepEqual(await replica.list(), []);
  assert.equal(denied(server), '');
});

/** What the server's log says of refusals. */
function denied(server: NatsServer): string {
  return server.log
    .split('\n')
    .filter((line) => /violation/i.test(line))
    .join('\n');
}

test('who may not answer flow control is told so, instead of waiting for ever for the rest of a file', async (t) => {
  const users = `authorization { users: [
    { user: admin, password: mypassword }
    { user: mute, password: mypassword, permissions: { publish: { deny: ["$JS.FC.>"] } } }
  ] }`;
  const sqlite = sqliteShell(t);
  const server = sqlite && (await serverWith(t, users));
  if (!server) return;
  const folder = await scratchFolder(t);
  const app = join(folder, 'app.db');
  await sqlite.run(app, `CREATE TABLE note (data); INSERT INTO note VALUES (randomblob(${MUCH}000000));`);
  const replica = `${as(server, 'mute').url}/backups`;
  assert.equal((await jetlite(['backup', app, replica])).exitCode, 0);
  const refused = await jetlite(['restore', '-o', join(folder, 'restored.db'), replica]);
  assertRefused(
    refused,
    1,
    /cannot read .*: this user may not publish to \$JS\.FC\.OBJ_backups\.> \(bucket backups, nats:/,
  );
  assert.match(denied(server), /\$JS\.FC\.OBJ_backups/);
});

test('where the answers to flow control vanish on their way, reading a large file ends with an error', async (t) => {
  const server = await startNatsServer(t, { config: 'mappings: { "$JS.FC.>": "nowhere.>" }' });
  if (server === undefined) return;
  await makeBucket(server);
  const replica = await openBucketReplica(t, server, 'backups', { nats: { timeoutMs: 1000 } });
  const file = await replica.write(target(1, 1n), blocks(MUCH, 1));
  const message = /the server answers but sends no more of .* \(bucket backups, nats:/;
  await assert.rejects(assertIntact(replica, file, MUCH, 1), { code: 'REPLICA', message });
});

test('where what a server pushes reaches nobody, a listing says so, as of a server that may come back', async (t) => {
  const services = '[{ service: "$JS.API.>" }, { service: "$O.>" }, { service: "$JS.FC.>" }]';
  const imports = services.replaceAll(/service: ("[^"]*")/g, 'service: { account: A, subject: $1 }');
  const server = await startNatsServer(t, {
    config: `accounts {
      A: { jetstream: enabled, users: [{ user: admin, password: mypassword }], exports: ${services} }
      B: { users: [{ user: other, password: mypassword }], imports: ${imports} }
    }`,
  });
  if (server === undefined) return;
  const login = { username: 'admin', password: 'mypassword' };
  const link = await connectNats({ hosts: [`127.0.0.1:${server.port}`], tls: false }, login, {});
  await createBucket(link, 'backups');
  await link.close();
  const admin = await openBucketReplica(t, as(server, 'admin'));
  await admin.write(target(0, 1n), bytes('something to list'));
  const replica = await openBucketReplica(t, as(server, 'other'), 'backups', { nats: { timeoutMs: 1000 } });
  const message =
    /^(the server pushes nothing|the server delivered \d+ messages, 0 came) \(bucket backups, nats:/;
  await assert.rejects(replica.list(), { code: 'REPLICA', away: true, message });
});
