import assert from 'node:assert/strict';
import { rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseListenAddress } from '../../cli/listen-address.js';
import { Metrics } from '../../cli/metrics.js';
import { Monitor } from '../../cli/monitor.js';
import { JetliteError } from '../../lib/errors.js';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite, type Started, startJetlite } from './run.js';

/** Where a running `replicate` says that its metrics are. */
async function monitorOf(running: Started): Promise<string> {
  let shown = '';
  running.child.stderr!.on('data', (text: string) => {
    shown += text;
  });
  await running.shows(/metrics at http:\S+\/metrics/);
  return /metrics at (http:\S+)\/metrics/.exec(shown)![1];
}

/** The value of a figure; undefined while it is not there. */
async function figure(url: string, name: string, database: string): Promise<number | undefined> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${name}{database="${database}"}`));
  return line === undefined ? undefined : Number(line.split(' ')[1]);
}

async function healthOf(url: string, database: string): Promise<string> {
  const health = await (await fetch(`${url}/healthz`)).json();
  return (health as { databases: Record<string, string> }).databases[database];
}

async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await holds()) return;
    await delay(20);
  }
  assert.fail(`expected ${what}`);
}

test('a running replicate shows Prometheus what is durable, and that it is well', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await shell.run(database, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  const session = await shell.open(database);
  const running = startJetlite(['replicate', database, join(folder, 'replica'), '--addr', '127.0.0.1:0']);
  const url = await monitorOf(running);
  await running.shows(/replicating/);
  await session.run('INSERT INTO t VALUES (1);');
  await until(
    async () => ((await figure(url, 'jetlite_durable_txid', database)) ?? 0) >= 2,
    'a second durable TXID',
  );
  assert.equal(await figure(url, 'jetlite_replica_away', database), 0);
  assert.equal(await figure(url, 'jetlite_failed', database), 0);
  const files = await figure(url, 'jetlite_files_total', database);
  assert.ok(files !== undefined && files >= 2, `${files} files`);
  const health = await fetch(`${url}/healthz`);
  assert.equal(health.status, 200);
  assert.deepEqual(await health.json(), { healthy: true, databases: { [database]: 'replicating' } });
  assert.equal((await fetch(`${url}/`)).status, 404);
  assert.equal((await fetch(`${url}/metrics`, { method: 'POST' })).status, 405);
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exitCode, 0);
});

test('a server that is away shows for every database at once, with commits that wait or without, until it is back', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await startNatsServer(t));
  if (!shell || !server) return;
  await makeBucket(server);
  await server.stop();
  const folder = await scratchFolder(t);
  const [busy, idle] = ['busy', 'idle'].map((name) => join(folder, `${name}.db`));
  for (const path of [busy, idle]) {
    await shell.run(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  }
  const config = join(folder, 'jetlite.yml');
  const dbs = [busy, idle].map(
    (path) =>
      `  - {path: "${path}", replica: {url: "${server.url}/backups/${path.slice(folder.length + 1)}"}}`,
  );
  await writeFile(config, ['addr: "127.0.0.1:0"', 'dbs:', ...dbs, ''].join('\n'));
  const running = startJetlite(['replicate', '--config', config]);
  const url = await monitorOf(running);
  const becomes = async (away: number, health: string) => {
    for (const path of [busy, idle]) {
      const shows = async () =>
        (await figure(url, 'jetlite_replica_away', path)) === away && (await healthOf(url, path)) === health;
      await until(shows, `jetlite_replica_away ${away} of ${path}, ${health}`);
    }
  };
  await becomes(1, 'waiting');
  await server.restart();
  await becomes(0, 'replicating');
  await server.kill();
  await shell.run(busy, 'INSERT INTO t VALUES (1);');
  await becomes(1, 'waiting');
  await server.restart();
  await becomes(0, 'replicating');
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exitCode, 0);
});

test('a database that goes missing is waited for until it is back, though nothing was committed', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await shell.run(database, 'CREATE TABLE t(x);');
  const running = startJetlite(['replicate', database, join(folder, 'replica'), '--addr', '127.0.0.1:0']);
  const url = await monitorOf(running);
  const becomes = (health: string) => until(async () => (await healthOf(url, database)) === health, health);
  await becomes('replicating');
  await rename(database, `${database}.away`);
  await becomes('waiting');
  await rename(`${database}.away`, database);
  await becomes('replicating');
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exitCode, 0);
});

test('what has failed stays failed, whatever comes late', async (t) => {
  const database = '/var/lib/a.db';
  const monitor = await Monitor.start({ host: '127.0.0.1', port: 0 }, [database]);
  t.after(() => monitor.close());
  monitor.fail(database);
  for (const type of ['reached', 'away'] as const) {
    monitor.take(database, { type, level: 'debug', message: '' });
    assert.equal((await fetch(`${monitor.url}/healthz`)).status, 503);
    assert.equal(await healthOf(monitor.url, database), 'failed');
  }
});

test('what a replica lost is counted, and called damaged until it is healed', async () => {
  const metrics = new Metrics();
  const database = '/var/lib/a.db';
  metrics.add(database);
  const shown = async (name: string): Promise<string | undefined> =>
    (await metrics.text()).split('\n').find((line) => line.startsWith(`${name}{`));
  const label = `{database="${database}"}`;
  assert.equal(await shown('jetlite_lost_files_total'), `jetlite_lost_files_total${label} 0`);
  metrics.take(database, { type: 'lost', level: 'error', message: '', files: ['ltx/0/a', 'ltx/0/b'] });
  assert.equal(await shown('jetlite_lost_files_total'), `jetlite_lost_files_total${label} 2`);
  assert.equal(await shown('jetlite_replica_damaged'), `jetlite_replica_damaged${label} 1`);
  assert.equal(await shown('jetlite_healed_timestamp_seconds'), undefined);
  metrics.take(database, { type: 'healed', level: 'warn', message: '' });
  assert.equal(await shown('jetlite_replica_damaged'), `jetlite_replica_damaged${label} 0`);
  assert.match((await shown('jetlite_healed_timestamp_seconds')) ?? '', / \d{10}/);
});

test('a database whose replication failed makes the health check fail while others go on', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const sound = join(folder, 'sound.db');
  const damaged = join(folder, 'damaged.db');
  await shell.run(sound, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  await writeFile(damaged, 'this is no database, however long one looks at it '.repeat(100));
  const config = join(folder, 'jetlite.yml');
  const dbs = [sound, damaged].map((path) => `  - {path: "${path}", replica: {path: "${path}-replica"}}`);
  await writeFile(config, ['addr: "127.0.0.1:0"', 'dbs:', ...dbs, ''].join('\n'));
  const running = startJetlite(['replicate', '--config', config]);
  const url = await monitorOf(running);
  await until(async () => (await figure(url, 'jetlite_failed', damaged)) === 1, 'a failure to be shown');
  await running.shows(/replicating .*sound\.db/);
  const health = await fetch(`${url}/healthz`);
  assert.equal(health.status, 503);
  assert.deepEqual(await health.json(), {
    healthy: false,
    databases: { [sound]: 'replicating', [damaged]: 'failed' },
  });
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exitCode, 1);
  await rm(damaged);
});

test('an address that is taken or none is refused before anything begins', async (t) => {
  const folder = await scratchFolder(t);
  const other = createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await new Promise((resolve) => other.once('listening', resolve));
  const { port } = other.address() as { port: number };
  const args = ['replicate', join(folder, 'a.db'), join(folder, 'replica'), '--addr'];
  assertRefused(await jetlite([...args, `127.0.0.1:${port}`]), 2, /another program listens there/);
  assertRefused(await jetlite([...args, 'somewhere']), 2, /expected an address to listen on as HOST:PORT/);
  const config = join(folder, 'jetlite.yml');
  await writeFile(
    config,
    `addr: nowhere\ndbs:\n  - {path: "${folder}/a.db", replica: {path: "${folder}/r"}}\n`,
  );
  assertRefused(await jetlite(['replicate', '--config', config]), 2, /jetlite\.yml:1: addr.*HOST:PORT/);
});

test('addresses to listen on', () => {
  assert.deepEqual(parseListenAddress('127.0.0.1:9090'), { host: '127.0.0.1', port: 9090 });
  assert.deepEqual(parseListenAddress('localhost:1'), { host: 'localhost', port: 1 });
  assert.deepEqual(parseListenAddress('[::1]:9090'), { host: '::1', port: 9090 });
  assert.deepEqual(parseListenAddress(':9090'), { host: undefined, port: 9090 });
  assert.deepEqual(parseListenAddress('9090'), { host: undefined, port: 9090 });
  for (const text of ['', ':', 'host', 'host:', 'a:b:1', '1.2.3.4:65536', 'http://h:1', '[::1]']) {
    assert.throws(() => parseListenAddress(text), JetliteError, text);
  }
});
