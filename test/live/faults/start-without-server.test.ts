/** A server that is not there when a command starts: what waits for it, what does not, and what is said. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRefused, jetlite, startJetlite } from '../../cli/run.js';
import { makeBucket } from '../../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../../support/nats-server.js';
import { scratchFolder } from '../../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../../support/sqlite.js';

async function makeDatabase(shell: SqliteShell, path: string): Promise<void> {
  await shell.run(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2), (3);');
}

async function stoppedServer(t: Parameters<typeof startNatsServer>[0]): Promise<NatsServer | undefined> {
  const server = await startNatsServer(t);
  if (server === undefined) return undefined;
  await makeBucket(server);
  await server.stop();
  return server;
}

test('replicate started while the server is down says so once, waits, and begins when it comes', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await stoppedServer(t));
  if (shell === undefined || server === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await makeDatabase(shell, database);
  const url = `${server.url}/backups/a`;
  const running = startJetlite(['replicate', database, url]);
  t.after(() => running.child.kill('SIGKILL'));
  await running.shows(/connection refused; waiting for it/);
  await shell.run(database, 'INSERT INTO t VALUES (4);');
  await server.restart();
  await running.shows(/replicating .*a\.db/);
  running.child.kill('SIGTERM');
  const { exitCode, stderr } = await running.ended;
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr.match(/waiting for it/g)?.length, 1, stderr);
  const output = join(folder, 'out.db');
  assert.equal((await jetlite(['restore', url, '-o', output])).exitCode, 0);
  assert.equal((await shell.run(output, 'SELECT count(*) FROM t;')).trim(), '4');
});

test('a live copy of an earlier run stays while its server is down at the start, and goes on when it comes', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await startNatsServer(t));
  if (shell === undefined || server === undefined) return;
  await makeBucket(server);
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const copy = join(folder, 'copy.db');
  const url = `${server.url}/backups/a`;
  await makeDatabase(shell, database);
  assert.equal((await jetlite(['backup', database, url])).exitCode, 0);
  const follow = ['restore', '-f', url, '-o', copy];
  const first = startJetlite(follow);
  t.after(() => first.child.kill('SIGKILL'));
  await first.shows(/follows/);
  first.child.kill('SIGTERM');
  assert.equal((await first.ended).exitCode, 0);
  await server.stop();
  const running = startJetlite(follow);
  t.after(() => running.child.kill('SIGKILL'));
  await running.shows(/connection refused; waiting for it/);
  assert.equal((await shell.run(copy, 'SELECT count(*) FROM t;')).trim(), '3');
  await server.restart();
  await running.shows(/follows/);
  running.child.kill('SIGTERM');
  const { exitCode, stderr } = await running.ended;
  assert.equal(exitCode, 0, stderr);
});

test('a signal ends the waiting for a server, with exit code 0', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await stoppedServer(t));
  if (shell === undefined || server === undefined) return;
  const database = join(await scratchFolder(t), 'a.db');
  await makeDatabase(shell, database);
  const running = startJetlite(['replicate', database, `${server.url}/backups/a`]);
  await running.shows(/waiting for it/);
  running.child.kill('SIGTERM');
  const { exitCode, stderr } = await running.ended;
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /stopped before .* answered/);
});

test('a signal ends the wait for a server that takes connections and says nothing', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await makeDatabase(shell, database);
  let asked = (): void => {};
  const silent = createServer((socket) => {
    socket.on('error', () => {});
    asked();
  }).listen(0, '127.0.0.1');
  t.after(() => silent.close());
  await once(silent, 'listening');
  const host = `nats://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const url = `${host}/backups`;
  const interrupted = /was interrupted/;
  const cases: [string[], number, RegExp][] = [
    [['backup', database, url], 1, interrupted],
    [['restore', url, '-o', join(folder, 'out.db')], 1, interrupted],
    [['verify', url], 1, interrupted],
    [['status', url], 1, interrupted],
    [['bucket', 'list', '--server', host], 1, interrupted],
    [['replicate', database, url], 0, /stopped before .* answered/],
    [['restore', '-f', url, '-o', join(folder, 'copy.db')], 0, /^$/],
  ];
  for (const [args, exitCode, message] of cases) {
    const connected = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const running = startJetlite(args);
    t.after(() => running.child.kill('SIGKILL'));
    await Promise.race([connected, running.ended]);
    running.child.kill('SIGTERM');
    const ended = await running.ended;
    assert.equal(ended.exitCode, exitCode, `${args[0]}: ${ended.stderr}`);
    assert.match(ended.stderr, message, args[0]);
  }
});

test('backup and replicate --once do not wait for a server that is down', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await stoppedServer(t));
  if (shell === undefined || server === undefined) return;
  const database = join(await scratchFolder(t), 'a.db');
  await makeDatabase(shell, database);
  const url = `${server.url}/backups/a`;
  const refused = /no NATS server listens at 127\.0\.0\.1:\d+: connection refused/;
  assertRefused(await jetlite(['backup', database, url]), 1, refused);
  assertRefused(await jetlite(['replicate', '--once', database, url]), 1, refused);
});

test('backup goes where the configuration says, and gives a server that stalls no more than its timeout', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await startNatsServer(t));
  if (shell === undefined || server === undefined) return;
  await makeBucket(server);
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await makeDatabase(shell, database);
  const config = join(folder, 'jetlite.yml');
  const replica = `{url: "${server.url}/backups/a", timeout: 400ms}`;
  await writeFile(config, `dbs: [{path: ${database}, replica: ${replica}}]`);
  const backup = ['backup', database, '--config', config];
  const done = await jetlite(backup);
  assert.match(done.stdout, /snapshot, .* written to nats:.*\/backups\/a as TXID 0{15}1/, done.stderr);
  server.pause();
  assertRefused(await jetlite(backup), 1, /no answer from the NATS server at .* within 0\.4 s/);
  server.resume();
  assertRefused(await jetlite([...backup, `${server.url}/backups`]), 2, /a replica or --config, found both/);
  assertRefused(
    await jetlite(['backup', join(folder, 'b.db'), '--config', config]),
    2,
    /names no database .*b\.db/,
  );
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith('-backup')),
    [],
  );
});

test('what waiting does not mend ends replicate at once: a wrong password, a bucket that is missing', async (t) => {
  const shell = sqliteShell(t);
  const server = await startNatsServer(t, { config: 'authorization { user: a, password: b }' });
  if (shell === undefined || server === undefined) return;
  const database = join(await scratchFolder(t), 'a.db');
  await makeDatabase(shell, database);
  const at = (user: string) => `nats://${user}@127.0.0.1:${server.port}/nowhere`;
  assertRefused(
    await jetlite(['replicate', database, at('a:wrong')]),
    1,
    /refused the user name or password/,
  );
  assertRefused(await jetlite(['replicate', database, at('a:b')]), 1, /there is no bucket nowhere/);
});

test('of several databases, one whose server is down does not stop the others', async (t) => {
  const shell = sqliteShell(t);
  const server = shell && (await stoppedServer(t));
  if (shell === undefined || server === undefined) return;
  const folder = await scratchFolder(t);
  for (const name of ['a', 'b']) await makeDatabase(shell, join(folder, `${name}.db`));
  const config = join(folder, 'jetlite.yml');
  await writeFile(
    config,
    `dbs:
  - path: ${folder}/a.db
    restore-if-db-not-exists: true
    replica: {url: "${server.url}/backups/a"}
  - path: ${folder}/b.db
    replica: {path: ${folder}/b-replica}
`,
  );
  const running = startJetlite(['replicate', '--config', config]);
  t.after(() => running.child.kill('SIGKILL'));
  await running.shows(/connection refused; waiting for it/);
  await running.shows(/replicating .*b\.db/);
  await server.restart();
  await running.shows(/replicating .*a\.db/);
  running.child.kill('SIGTERM');
  const { exitCode, stderr } = await running.ended;
  assert.equal(exitCode, 0, stderr);
});

test('a program lives no longer for a connection that was given up', async (t) => {
  // Greets the first one who comes and is silent from then on, as a server that stalls.
  let greeted = false;
  const listener = createServer((socket) => {
    socket.on('error', () => {});
    if (!greeted) socket.write('INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n');
    greeted = true;
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(() => listener.close());
  listener.unref();
  const { port } = listener.address() as { port: number };
  const module = new URL('../../../lib/index.js', import.meta.url).href;
  const script = `
    import { openReplica } from ${JSON.stringify(module)};
    await openReplica('nats://127.0.0.1:${port}/backups', { nats: { timeoutMs: 1000 } }).catch((error) => {
      console.log(error.message, error.away);
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 30_000,
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.once('close', (...ended) => resolve(ended)),
  );
  assert.match(output, /no answer from the NATS server .* true/);
  assert.deepEqual([code, signal], [0, null], 'it ended by itself');
});
