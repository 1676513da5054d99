import assert from 'node:assert/strict';
import { readdir, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { splitCommand } from '../../cli/subprogram.js';
import { JetliteError } from '../../lib/errors.js';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite, startJetlite } from './run.js';

type Test = Parameters<typeof sqliteShell>[0];

async function makeDatabase(shell: SqliteShell, path: string): Promise<void> {
  await shell.run(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2), (3);');
}

/** The answer of a query on what a replica restores to. */
async function restoredAnswer(
  shell: SqliteShell,
  source: readonly string[],
  output: string,
): Promise<string> {
  const run = await jetlite(['restore', ...source, '-o', output, '--force']);
  assert.equal(run.exitCode, 0, run.stderr);
  return (await shell.run(output, 'SELECT group_concat(x) FROM t;')).trim();
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

test('SIGTERM and SIGINT end replicate with exit code 0 and nothing lost', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const folder = await scratchFolder(t);
    const database = join(folder, 'a.db');
    const replica = join(folder, 'replica');
    await makeDatabase(shell, database);
    const session = await shell.open(database);
    const running = startJetlite(['replicate', database, `file://${replica}`]);
    await running.shows(/replicating .*a\.db to file:/);
    await session.run('INSERT INTO t VALUES (4);');
    running.child.kill(signal);
    const run = await running.ended;
    assert.equal(run.exitCode, 0, run.stderr);
    assert.match(run.stderr, /is up to date at TXID 0{15}[12]/);
    assert.equal(run.stdout, '');
    assert.equal(await restoredAnswer(shell, [replica], join(folder, 'out.db')), '1,2,3,4');
  }
});

test('--once brings the replica up to date and ends', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  await makeDatabase(shell, join(folder, 'a.db'));
  for (const expected of ['1,2,3', '1,2,3,5']) {
    const run = await jetlite(['replicate', '-once', 'a.db', 'replica'], { cwd: folder });
    assert.equal(run.exitCode, 0, run.stderr);
    assert.equal(await restoredAnswer(shell, [join(folder, 'replica')], join(folder, 'out.db')), expected);
    await shell.run(join(folder, 'a.db'), 'INSERT INTO t VALUES (5);');
  }
});

test('a configuration with two databases: one that fails is reported and does not stop the other', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  await makeDatabase(shell, join(folder, 'good.db'));
  await writeFile(join(folder, 'bad.db'), Buffer.alloc(8192, 'no database '));
  const config = join(folder, 'jetlite.yml');
  const entry = (name: string): string =>
    `  - path: ${folder}/${name}.db\n    checkpoint-interval: 1m\n    replica: {path: ${folder}/${name}-replica}\n`;
  await writeFile(config, `logging: {type: json}\ndbs:\n${entry('good')}${entry('bad')}`);
  const run = await jetlite(['replicate', '-config', config, '-once']);
  assert.equal(run.exitCode, 1);
  const events = run.stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { level: string; message: string; database?: string });
  const warnings = events.filter(({ level }) => level === 'warn').map(({ message }) => message);
  assert.equal(warnings.filter((message) => /checkpoint-interval has no effect/.test(message)).length, 2);
  const errors = events.filter(({ level }) => level === 'error');
  assert.equal(errors.length, 1);
  assert.match(errors[0].message, /expected the text "SQLite format 3"/);
  assert.equal(errors[0].database, join(folder, 'bad.db'));
  const source = ['--config', config, join(folder, 'good.db')];
  assert.equal(await restoredAnswer(shell, source, join(folder, 'out.db')), '1,2,3');
  const listed = await jetlite(['databases', '--config', config, '--json']);
  assert.deepEqual(
    (JSON.parse(listed.stdout) as { path: string }[]).map(({ path }) => path),
    [join(folder, 'good.db'), join(folder, 'bad.db')],
  );
});

test('--restore-if-db-not-exists restores what is missing and leaves what is there', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const args = ['replicate', '-once', '-restore-if-db-not-exists', database, join(folder, 'replica')];
  await makeDatabase(shell, database);
  assert.equal((await jetlite(args)).exitCode, 0);
  for (const name of await readdir(folder))
    if (name !== 'replica') await rm(join(folder, name), { recursive: true });
  const run = await jetlite(args);
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stderr, /restored .*a\.db to TXID 0{15}1/);
  assert.equal((await shell.run(database, 'SELECT count(*) FROM t;')).trim(), '3');
  assert.doesNotMatch((await jetlite(args)).stderr, /restored/);
  await unlink(database);
  await rm(join(folder, 'replica'), { recursive: true });
  // Neither database nor replica: there is nothing to restore, and nothing to replicate either.
  assertRefused(await jetlite([...args, '--quiet']), 1, /no such file/);
});

test('--exec ends when its program ends, with its exit code, after a last synchronisation', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const replica = join(folder, 'replica');
  await makeDatabase(shell, database);
  const script = join(folder, 'program.mjs');
  await writeFile(
    script,
    `import { writeFileSync } from 'node:fs';
     writeFileSync(process.argv[2], JSON.stringify(process.argv.slice(3)));
     process.exit(7);`,
  );
  const exec = `'${process.execPath}' ${script} ${join(folder, 'arguments')} "two words" plain`;
  const run = await jetlite(['replicate', '-exec', exec, database, replica]);
  assert.equal(run.exitCode, 7, run.stderr);
  assert.deepEqual(JSON.parse(await readFile(join(folder, 'arguments'), 'utf8')), ['two words', 'plain']);
  assert.equal(await restoredAnswer(shell, [replica], join(folder, 'out.db')), '1,2,3');
});

test('--exec passes a signal on and waits for its program', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await makeDatabase(shell, database);
  const script = join(folder, 'program.mjs');
  await writeFile(
    script,
    `import { writeFileSync } from 'node:fs';
     process.on('SIGTERM', () => { writeFileSync(process.argv[2], 'ended in order'); process.exit(0); });
     console.error('program is up');
     setInterval(() => {}, 1000);`,
  );
  const note = join(folder, 'note');
  const exec = `${process.execPath} ${script} ${note}`;
  const running = startJetlite(['replicate', '--exec', exec, database, join(folder, 'replica')]);
  await running.shows(/program is up/);
  assert.ok(!(await exists(note)));
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exitCode, 0);
  assert.equal(await readFile(note, 'utf8'), 'ended in order');
});

test('a replication that fails ends the program beside it', async (t) => {
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await writeFile(database, Buffer.alloc(8192, 'no database '));
  const exec = `${process.execPath} -e "setInterval(() => {}, 1000)"`;
  const run = await jetlite(['replicate', '--exec', exec, '--quiet', database, join(folder, 'replica')]);
  assertRefused(run, 1, /expected the text "SQLite format 3"/);
});

test('words of a command line are split as in a shell, and nothing is expanded', () => {
  assert.deepEqual(splitCommand('app'), ['app']);
  assert.deepEqual(splitCommand('  app  -a   b '), ['app', '-a', 'b']);
  assert.deepEqual(splitCommand(`app 'a  b' "c 'd' \\"e\\"" f\\ g h'i'"j" $HOME ''`), [
    'app',
    'a  b',
    'c \'d\' "e"',
    'f g',
    'hij',
    '$HOME',
    '',
  ]);
  for (const bad of ['', '  ', "a 'b", 'a "b', 'a\\']) {
    assert.throws(
      () => splitCommand(bad),
      (error) => error instanceof JetliteError && error.code === 'USAGE',
    );
  }
});

test('the main job over NATS: back up, replicate, list, restore and verify', async (t: Test) => {
  const server = await startNatsServer(t);
  const shell = sqliteShell(t);
  if (server === undefined || shell === undefined) return;
  await makeBucket(server);
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  await makeDatabase(shell, database);
  const url = `${server.url}/backups/app`;
  const first = await jetlite(['backup', database, url, '--json']);
  assert.equal(first.exitCode, 0, first.stderr);
  const made = JSON.parse(first.stdout) as Record<string, unknown>;
  assert.deepEqual([made.kind, made.txid, made.replica], ['snapshot', '0000000000000001', url]);
  await shell.run(database, 'INSERT INTO t VALUES (4);');
  const env = { NATS_URL: server.url };
  const once = await jetlite(['replicate', '-once', database, 'nats:///backups/app'], { env });
  assert.equal(once.exitCode, 0, once.stderr);
  const listed = await jetlite(['ltx', url, '--json', '--level', '0']);
  assert.deepEqual(
    (JSON.parse(listed.stdout) as { min_txid: string }[]).map((file) => file.min_txid),
    ['0000000000000001', '0000000000000002'],
  );
  assert.equal(await restoredAnswer(shell, [url], join(folder, 'out.db')), '1,2,3,4');
  assert.equal(await restoredAnswer(shell, ['--txid', '1', url], join(folder, 'out.db')), '1,2,3');
  const queries = ['--query', 'SELECT count(*) FROM t', '--expect', '4'];
  const verified = await jetlite(['verify', url, '--against', database, ...queries]);
  assert.equal(verified.exitCode, 0, verified.stdout + verified.stderr);
});
