import assert from 'node:assert/strict';
import { readdir, rename, truncate, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'nats';
import { openFileReplica } from '../../lib/replica/file.js';
import { ltxPath } from '../../lib/replica/names.js';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite } from './run.js';

test('verify --audit tells from metadata what a replica has lost; the next backup makes it whole', async (t) => {
  const sqlite3 = sqliteShell(t);
  if (sqlite3 === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'app.db');
  const replica = `${database}-backup`;
  const audit = async (...args: string[]): Promise<{ txid: string; findings: string[] }> => {
    const { exitCode, stdout, stderr } = await jetlite([
      ...['verify', '--audit', '--json'],
      ...(args.length > 0 ? args : [database]),
    ]);
    assert.equal(stderr, '');
    const { sound, txid, findings } = JSON.parse(stdout);
    assert.equal(exitCode, sound ? 0 : 3);
    return { txid, findings: findings.map(({ message }: { message: string }) => message) };
  };
  for (const statement of ['CREATE TABLE t(x);', 'INSERT INTO t VALUES (1);', 'INSERT INTO t VALUES (2);']) {
    await sqlite3.run(database, statement);
    assert.equal((await jetlite(['backup', database])).exitCode, 0);
  }
  assert.deepEqual(await audit(), { txid: '0000000000000003', findings: [] });
  const [, second, third] = await (await openFileReplica(replica)).list(0);

  await unlink(join(replica, ltxPath(third)));
  const rolledBack = await audit();
  assert.match(
    rolledBack.findings.join(),
    /its files lead to TXID 0000000000000002, expected TXID 0000000000000003/,
  );
  const elsewhere = join(folder, 'state');
  await rename(join(folder, '.app.db-jetlite'), elsewhere);
  assert.deepEqual(await audit(), { txid: '0000000000000002', findings: [] });
  for (const source of [database, replica]) {
    assert.deepEqual(await audit('--state-dir', elsewhere, source), rolledBack);
  }
  await rename(elsewhere, join(folder, '.app.db-jetlite'));
  assertRefused(await jetlite(['verify', '--state-dir', elsewhere, database]), 2, /--audit/);
  const healing = await jetlite(['backup', database]);
  assert.match(healing.stderr, /has lost files/);
  assert.deepEqual(await audit(), { txid: '0000000000000004', findings: [] });

  await truncate(join(replica, ltxPath(second)), 0);
  const damaged = await audit();
  assert.match(damaged.findings.join(), /ltx\/0\/0000000000000002-0000000000000002\.ltx is damaged/);
  const against = await jetlite(['verify', replica, '--against', database]);
  assert.equal(against.exitCode, 0, against.stdout);
  const both = await jetlite(['verify', '--audit', '--query', 'SELECT 1', '--expect', '1', replica]);
  assertRefused(both, 2, /--audit/);
});

test('backup and verify --audit find what is kept of a bucket whose URL was written otherwise', async (t) => {
  const sqlite3 = sqliteShell(t);
  const server = await startNatsServer(t);
  if (sqlite3 === undefined || server === undefined) return;
  await makeBucket(server);
  const database = join(await scratchFolder(t), 'app.db');
  const state = `${database}-state`;
  const [url, respelled] = [`${server.url}/backups`, `nats://localhost:${server.port}/backups`];
  const backUp = async (replica: string): Promise<string> => {
    const { exitCode, stderr } = await jetlite(['backup', '--state-dir', state, database, replica]);
    assert.equal(exitCode, 0, stderr);
    return stderr;
  };
  await sqlite3.run(database, 'CREATE TABLE t(x);');
  assert.equal(await backUp(url), '');
  await sqlite3.run(database, 'INSERT INTO t VALUES (1);');
  assert.match(await backUp(respelled), /is gone on with for/);
  assert.equal((await readdir(state)).length, 1);

  const before = await readdir(state, { recursive: true });
  await jetlite(['bucket', 'delete', '--force', 'backups', '--server', server.url]);
  await makeBucket(server);
  const run = await jetlite(['verify', '--audit', '--state-dir', state, url]);
  assert.equal(run.exitCode, 3, run.stdout);
  assert.match(run.stdout, /its files lead to no state, expected TXID 0000000000000002/);
  assert.deepEqual(await readdir(state, { recursive: true }), before);
});

test('verify --audit finds a file in a bucket that is too small to be one', async (t) => {
  const sqlite3 = sqliteShell(t);
  const server = await startNatsServer(t);
  if (sqlite3 === undefined || server === undefined) return;
  await makeBucket(server);
  const database = join(await scratchFolder(t), 'app.db');
  const url = `${server.url}/backups`;
  await sqlite3.run(database, 'CREATE TABLE t(x);');
  assert.equal((await jetlite(['backup', database, url])).exitCode, 0);
  const name = ltxPath({ level: 1, minTxid: 1n, maxTxid: 5n });
  const connection = await connect({ servers: server.url });
  const store = await connection.jetstream().views.os('backups');
  await store.putBlob({ name }, new Uint8Array(0));
  await connection.close();
  const run = await jetlite(['verify', '--audit', url]);
  assert.equal(run.exitCode, 3, run.stdout);
  assert.match(run.stdout, new RegExp(`${name} is damaged: expected at least 116 bytes, found 0`));
});
