import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { openFileReplica } from '../../lib/replica/file.js';
import { makeHistory, putLtx, random } from '../support/ltx-history.js';
import { startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite } from './run.js';

type Test = Parameters<typeof sqliteShell>[0];

/** A folder with a replica of three states. */
async function withReplica(t: Test): Promise<{ folder: string; replica: string; output: string }> {
  const folder = await scratchFolder(t);
  const replica = join(folder, 'replica');
  const home = await openFileReplica(replica);
  const history = makeHistory(3, 1024, 30, random(21));
  await putLtx(home, history, 9, 1, 1);
  await putLtx(home, history, 0, 2, 2);
  await putLtx(home, history, 0, 3, 3);
  await mkdir(join(folder, 'out'));
  return { folder, replica, output: join(folder, 'out/restored.db') };
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

test('what is no database is refused by backup and replicate, and no replica comes into being', async (t) => {
  const folder = await scratchFolder(t);
  const path = (name: string): string => join(folder, name);
  await writeFile(path('noise'), Buffer.alloc(8192, 'no database '));
  await writeFile(path('short'), 'SQLite format 3\0');
  await writeFile(path('empty'), '');
  await mkdir(path('folder'));
  const cases: [string, RegExp][] = [
    ['noise', /noise: .*expected the text "SQLite format 3"[\s\S]*not a SQLite database/],
    ['short', /short: .*expected 100 bytes, found 16/],
    ['empty', /empty: the file is empty/],
    ['missing', /missing: no such file/],
    ['folder', /folder: expected a SQLite database file, found a directory/],
  ];
  await Promise.all(
    cases.flatMap(([name, message]) =>
      [['backup'], ['replicate', '-once']].map(async ([command, ...flags]) => {
        const target = path(`replica-${command}-${name}`);
        const run = await jetlite([command, ...flags, path(name), target, '--quiet']);
        assertRefused(run, 1, message);
        assert.ok(!(await exists(target)));
      }),
    ),
  );
});

test('a replica that cannot be one is bad usage', async (t) => {
  const folder = await scratchFolder(t);
  const cases: [string, RegExp][] = [
    ['s3://bucket/db', /s3:\/\/ is no kind of replica/],
    ['nats://host', /names no bucket: nats:\/\/host/],
    ['nats://user:hunter2@host:99999/B', /expected a port/],
    ['file://folder', /three slashes/],
    ['backup.zip', /zip file/],
  ];
  for (const [url, message] of cases) {
    const run = await jetlite(['backup', join(folder, 'x.db'), url]);
    assertRefused(run, 2, message);
    assert.doesNotMatch(run.stderr, /hunter2/);
  }
});

test('a server that is not there is named', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  await shell.run(join(folder, 'a.db'), 'CREATE TABLE t(x);');
  const port = await closedPort();
  const run = await jetlite(['backup', join(folder, 'a.db'), `nats://me:hunter2@127.0.0.1:${port}/BUCKET`]);
  assertRefused(run, 1, new RegExp(`127\\.0\\.0\\.1:${port}`));
  assert.doesNotMatch(run.stderr, /hunter2/);
});

test('a server that never answers is given up on after the timeout, and named', async (t) => {
  const folder = await scratchFolder(t);
  const { server, port } = await silentServer();
  t.after(() => closeServer(server));
  const config = join(folder, 'jetlite.yml');
  const replica = `{url: "nats://127.0.0.1:${port}/BUCKET", timeout: 300ms}`;
  await writeFile(config, `dbs:\n  - path: ${folder}/a.db\n    replica: ${replica}\n`);
  const run = await jetlite(['restore', join(folder, 'a.db'), '--config', config]);
  assertRefused(run, 1, new RegExp(`127\\.0\\.0\\.1:${port}`));
  assert.deepEqual(await readdir(folder), ['jetlite.yml']);
});

test('a bucket that does not exist is named, with how to create it', async (t) => {
  const server = await startNatsServer(t);
  const shell = sqliteShell(t);
  if (server === undefined || shell === undefined) return;
  const folder = await scratchFolder(t);
  await shell.run(join(folder, 'a.db'), 'CREATE TABLE t(x);');
  const url = `${server.url}/NOBUCKET`;
  for (const args of [
    ['backup', join(folder, 'a.db'), url],
    ['restore', url, '-o', join(folder, 'out.db')],
    ['ltx', url],
  ]) {
    assertRefused(await jetlite(args), 1, /NOBUCKET[\s\S]*object add NOBUCKET|NOBUCKET[\s\S]*create/);
  }
  assert.ok(!(await exists(join(folder, 'out.db'))));
});

test('a damaged LTX file is named and nothing is left at the output', async (t) => {
  const { replica, output } = await withReplica(t);
  const name = 'ltx/0/0000000000000003-0000000000000003.ltx';
  const bytes = await readFile(join(replica, name));
  bytes[bytes.length - 30] ^= 0x10;
  await writeFile(join(replica, name), bytes);
  assertRefused(await jetlite(['restore', replica, '-o', output]), 1, new RegExp(`jetlite: ${name}`));
  assert.deepEqual(await readdir(join(output, '..')), []);
  const verified = await jetlite(['verify', replica]);
  assert.equal(verified.exitCode, 3);
  assert.match(verified.stdout, new RegExp(`NOT SOUND\n {2}replica: ${name}`));
  const json = await jetlite(['verify', replica, '--json']);
  assert.equal(json.exitCode, 3);
  assert.equal((JSON.parse(json.stdout) as { sound: boolean }).sound, false);
});

test('an output that exists is refused and left alone', async (t) => {
  const { replica, output } = await withReplica(t);
  await writeFile(output, 'precious');
  assertRefused(await jetlite(['restore', replica, '-o', output]), 1, /restored\.db exists\n.*--force/);
  const folder = await jetlite(['restore', replica, '-o', join(output, '..')]);
  assertRefused(folder, 1, /expected a file name for the output, found the folder/);
  assert.equal(await readFile(output, 'utf8'), 'precious');
  const excused = await jetlite(['restore', replica, '-o', output, '-if-db-not-exists']);
  assert.equal(excused.exitCode, 0);
  assert.equal(await readFile(output, 'utf8'), 'precious');
});

test('a state that cannot be had is refused with those that can', async (t) => {
  const { replica, output } = await withReplica(t);
  const txid = await jetlite(['restore', replica, '-o', output, '-txid', 'ff']);
  assertRefused(
    txid,
    1,
    /TXID 0{14}ff cannot be restored: the nearest below is 0{15}3 \([\s\S]*3 states can be restored/,
  );
  const early = await jetlite(['restore', replica, '-o', output, '-timestamp', '2001-01-01T00:00:00Z']);
  assertRefused(early, 1, /nothing in the replica is as old as 2001-01-01T00:00:00\.000Z/);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('options that are unknown, doubled, empty or malformed are bad usage, before anything is touched', async (t) => {
  const { replica, output } = await withReplica(t);
  const restore = ['restore', replica, '-o', output];
  const verify = ['verify', replica];
  const cases: [string[], RegExp][] = [
    [[...restore, '--fast'], /Unknown option: fast/],
    [[...restore, '-f', '--txid', '1'], /--follow and --txid cannot be given together/],
    [[...restore, '-timestampp', 'x'], /Unknown option: timestampp/],
    [[...restore, 'extra'], /Unexpected argument: extra/],
    [[...restore, '-o', 'again'], /: -o was given 2 times/],
    [['restore', replica, '-o', ''], /: -o is empty/],
    [['restore', replica], /where should the restored database go\?\n.*-o/],
    [['restore'], /Too few arguments/],
    [[...restore, '--txid', 'xyz'], /--txid: expected a TXID/],
    [[...restore, '--txid', '0'], /--txid: expected a TXID/],
    [[...restore, '--timestamp', 'yesterday'], /--timestamp: expected a moment such as/],
    [[...restore, '--timestamp', '2026-02-30T00:00:00Z'], /--timestamp: expected a moment/],
    [[...restore, '--txid', '1', '--timestamp', '2026-01-01T00:00:00Z'], /a TXID or a timestamp, found both/],
    [[...restore, '--parallelism', '0'], /--parallelism: expected a whole number/],
    [[...restore, '--integrity-check', 'deep'], /integrity-check/],
    [[...verify, '--max-age', '5 minutes'], /--max-age: expected a duration such as/],
    [[...verify, '--query', 'SELECT 1'], /one --expect for each --query/],
    [['ltx', replica, '--level', '10'], /--level: expected 0 to 9 or all/],
    [['replicate', 'a.db'], /where should a\.db be replicated to\?/],
    [['replicate', 'a.db', replica, '--config', 'x.yml'], /or --config, found both/],
    [['replicate', 'a.db', replica, '--once', '--exec', 'true'], /--once and --exec/],
    [['replicate', 'a.db', replica, '--exec', "it's"], /--exec: expected quotes in pairs/],
    [
      // Quiet: replication may have said by then that it waits for the database.
      ['replicate', 'a.db', replica, '--exec', '/no/such/program', '--quiet'],
      /--exec: cannot start \/no\/such\/program/,
    ],
    [['replicate'], /there is no configuration file/],
    [['restore', 'nowhere.db'], /neither a replica nor a database with one/],
  ];
  for (let i = 0; i < cases.length; i += 4) {
    await Promise.all(
      cases.slice(i, i + 4).map(async ([args, message]) => {
        assertRefused(await jetlite(args, { cwd: join(output, '..') }), 2, message);
      }),
    );
  }
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('a bad configuration is refused with file, line and key, by every command that reads one', async (t) => {
  const folder = await scratchFolder(t);
  const config = join(folder, 'jetlite.yml');
  const cases: [string, RegExp][] = [
    ['dbs:\n  - path: a: b\n', /jetlite\.yml:2: /],
    [
      'dbs:\n  - path: a.db\n    replca: {path: b}\n',
      /jetlite\.yml:3: dbs\[0\]\.replca[\s\S]*Did you mean replica\?/,
    ],
    [
      'dbs:\n  - path: a.db\n    replica:\n      url: nats://h/B\n      timeout: soon\n',
      /:5: .*timeout: expected a duration/,
    ],
  ];
  for (const [text, message] of cases) {
    await writeFile(config, text);
    assertRefused(await jetlite(['databases', '-config', config]), 2, message);
    assertRefused(await jetlite(['replicate'], { env: { LITESTREAM_CONFIG: config } }), 2, message);
  }
  assertRefused(
    await jetlite(['databases', '--config', join(folder, 'no.yml')]),
    2,
    /no\.yml: it does not exist/,
  );
});

/** A port of the loopback on which nothing listens. */
async function closedPort(): Promise<number> {
  const { server, port } = await silentServer();
  await closeServer(server);
  return port;
}

/** A server that takes connections and says nothing. */
async function silentServer(): Promise<{ server: Server; port: number }> {
  const server = createServer((socket) => sockets.get(server)?.add(socket));
  sockets.set(server, new Set());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as { port: number }).port };
}

const sockets = new Map<Server, Set<Socket>>();

async function closeServer(server: Server): Promise<void> {
  for (const socket of sockets.get(server) ?? []) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
}
