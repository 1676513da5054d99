import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite, startJetlite } from './run.js';

interface Shown {
  readonly database: string;
  readonly local_txid: string | null;
  readonly replica_txid: string | null;
  readonly lag_ms: number | null;
  readonly files: number;
  readonly levels: readonly { level: number; files: number }[];
}

test('status shows every database of the configuration, and one that cannot be asked does not hide the others', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const config = join(folder, 'jetlite.yml');
  const entry = (name: string, replica: string): string =>
    `  - path: ${folder}/${name}.db\n    replica: {${replica}}\n`;
  const dbs = entry('a', `path: ${folder}/a-replica`) + entry('b', `path: ${folder}/b-replica`);
  await writeFile(config, `dbs:\n${dbs}`);
  await shell.run(join(folder, 'a.db'), 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  const once = await jetlite(['backup', join(folder, 'a.db'), join(folder, 'a-replica')]);
  assert.equal(once.exitCode, 0, once.stderr);
  const run = await jetlite(['status', '--config', config, '--json']);
  assert.equal(run.exitCode, 0, run.stderr);
  const [a, b] = JSON.parse(run.stdout) as [Shown, Shown];
  assert.equal(a.database, join(folder, 'a.db'));
  assert.deepEqual([a.replica_txid, a.local_txid], ['0000000000000001', '0000000000000001']);
  assert.deepEqual([a.files, a.levels[0]?.level, a.levels[0]?.files], [1, 0, 1]);
  assert.ok(a.lag_ms !== null && a.lag_ms >= 0);
  assert.deepEqual([b.database, b.replica_txid, b.lag_ms], [join(folder, 'b.db'), null, null]);
  const text = await jetlite(['status', '--config', config]);
  assert.match(text.stdout, /^database +size +local +replica.*\n.*a\.db .* 0{15}1 +0{15}1 .*\n.*empty/);

  const away = entry('c', 'url: "nats://127.0.0.1:1/B", timeout: 1s');
  await writeFile(config, `dbs:\n${dbs}${away}`);
  const partly = await jetlite(['status', '--config', config, '--json']);
  assert.equal(partly.exitCode, 1);
  assert.equal((JSON.parse(partly.stdout) as Shown[]).length, 2);
  assert.match(partly.stderr, /connection refused.*c\.db/);
  assertRefused(await jetlite(['status', 'nats://127.0.0.1:1/B']), 1, /connection refused/);
});

test('status --watch is woken by the server for each new state, and a signal ends it', async (t) => {
  const shell = sqliteShell(t);
  const server = await startNatsServer(t);
  if (shell === undefined || server === undefined) return;
  await makeBucket(server);
  const database = join(await scratchFolder(t), 'a.db');
  await shell.run(database, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  const url = `${server.url}/backups/a`;
  const watching = startJetlite(['status', '--watch', '--json', url]);
  t.after(() => watching.child.kill('SIGKILL'));
  let text = '';
  const states = async (wanted: string | null): Promise<void> => {
    const has = () =>
      text.split('\n').some((line) => line !== '' && (JSON.parse(line) as Shown).replica_txid === wanted);
    while (!has()) await new Promise((resolve) => watching.child.stdout?.once('data', resolve));
  };
  watching.child.stdout?.on('data', (more) => {
    text += more;
  });
  await states(null);
  assert.equal((await jetlite(['backup', database, url])).exitCode, 0);
  await states('0000000000000001');
  await shell.run(database, 'INSERT INTO t VALUES (1);');
  assert.equal((await jetlite(['backup', database, url])).exitCode, 0);
  await states('0000000000000002');
  watching.child.kill('SIGTERM');
  assert.equal((await watching.ended).exitCode, 0);
});
