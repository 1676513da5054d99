/** An address with a password in it where something else belongs: refused, and the password is nowhere to be seen. */

import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLog } from '../../cli/log.js';
import { withoutSecrets } from '../../lib/replica/nats/address.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { jetlite } from './run.js';

const URL = 'nats://ali:hunter2@127.0.0.1:1/B';

const SLIPS = ['hunter2@h:1/B', '//ali:hunter2@h/B', 'nats;//ali:hunter2@h/B', 'nats:/ali:hunter2@h/B'];

test('wherever on the command line it stands, it is refused and leaves nothing behind', async (t) => {
  const cwd = await scratchFolder(t);
  const cases = [
    ['replicate', 'a.db', 'b.db', URL],
    ['restroe', URL],
    ['restroe', 'nats://ali:hun hunter2@h/B'],
    ['ltx', URL, URL],
    ['bucket', URL, 'list'],
    ['bucket', 'list', '--creds', URL],
    ['ltx', 'nats:/ali:hunter2@h/B'],
    ['ltx', 'ali:hunter2@h/B'],
    ['restore', 'a.db', '--txid', URL],
    ['version', '--log-level', URL],
    ['replicate', 'a.db', 'replica', '--addr', URL],
    ['restore', 'replica', '-o', URL],
    ['verify', 'replica', '--against', URL],
    ['databases', '--config', URL],
    ['backup', 'a.db', '--state-dir', URL],
    ['backup', URL, 'a.db'],
    ['replicate', '--once', URL, 'a.db'],
    ['inspect', URL],
    ['backup', 'a.db', 'ali:hunter2@127.0.0.1:1/B'],
    ['backup', 'a.db', 'nats//ali:hunter2@h/B'],
    ['backup', 'a.db', 'nats/ali:hunter2@h/B'],
    ['ltx', 'nats//ali:hunter2@h:1/B'],
    ['ltx', 'nats/ali:hunter2@h:1/B'],
    ...SLIPS.flatMap((slip) => [
      ['ltx', slip],
      ['backup', 'a.db', slip],
      ['backup', slip],
      ['restore', 'replica', '-o', slip],
    ]),
    ['inspect', SLIPS[0]!],
    ['restroe', SLIPS[0]!],
    ['bucket', 'info', SLIPS[0]!],
    ['bucket', 'list', SLIPS[0]!],
  ];
  const runs = await Promise.all(cases.map((args) => jetlite([...args, '--log-level', 'debug'], { cwd })));
  for (const [i, { exitCode, stdout, stderr }] of runs.entries()) {
    assert.equal(exitCode, 2, `${cases[i]}: ${stderr}`);
    assert.doesNotMatch(`${stdout}${stderr}`, /hunter2/, cases[i]?.join(' '));
  }
  assert.deepEqual(await readdir(cwd), []);
});

test('wherever in a configuration it stands, it is refused and not shown', async (t) => {
  const cwd = await scratchFolder(t);
  const database = (replica: string, path = '/x') => `dbs: [{path: "${path}", replica: ${replica}}]`;
  const cases = [
    database(`"${URL}"`),
    database(`{type: "${URL}"}`),
    database('{path: /y}', URL),
    database(`{url: "nats://h/B", path: "${URL}"}`),
    database(`{url: "${URL}", path: a//b}`),
    database(`{url: "${URL}", timeout: "${URL}"}`),
    `addr: "${URL}"\n${database('{path: /y}')}`,
    ...SLIPS.flatMap((slip) => [database(`{path: "${slip}"}`), database('{path: /y}', slip)]),
    database(`{url: "${SLIPS[0]}"}`),
  ];
  for (const yaml of cases) {
    await writeFile(join(cwd, 'jetlite.yml'), yaml);
    const run = await jetlite(['databases', '--config', 'jetlite.yml'], { cwd });
    assert.equal(run.exitCode, 2, `${yaml}: ${run.stderr}`);
    assert.doesNotMatch(`${run.stdout}${run.stderr}`, /hunter2/, yaml);
  }
});

test('a path with an @ in it is a path', async (t) => {
  const cwd = await scratchFolder(t);
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  await shell.run(join(cwd, 'user@host.db'), 'CREATE TABLE t (a);');
  await mkdir(join(cwd, 'a@b'));
  for (const [db, replica] of [
    ['user@host.db', 'me@example.com/backup'],
    ['./user@host.db', 'a@b'],
    [join(cwd, 'user@host.db'), join(cwd, 'a@b', 'c:d@e:1')],
    [`${cwd}//user@host.db`, './c:d@e:1/f'],
    ['a@b/../user@host.db', 'a//b@c'],
  ] as const) {
    const run = await jetlite(['backup', db, replica], { cwd });
    assert.equal(run.exitCode, 0, run.stderr);
    assert.equal((await jetlite(['ltx', replica], { cwd })).exitCode, 0);
  }
});

test('what a library quotes is shown without the user part, and everything else as it is', () => {
  const cases: [string, string][] = [
    ['cannot reach tls://a:b@c@h:1/B now', 'cannot reach tls://***@h:1/B now'],
    ['found "s3cret@h", and nats:/t0ken@h/B', 'found "s3cret@h", and nats:/***@h/B'],
    ['me:pw@h/B is none', '***@h/B is none'],
    ['nats//me:p/w@h/B is none', 'nats//***@h/B is none'],
    ['at run (file:///a/b@1/x.js:3:4)', 'at run (file:///a/b@1/x.js:3:4)'],
    ['/home/me@x/a.db to nats://h:1/B at 12:00', '/home/me@x/a.db to nats://h:1/B at 12:00'],
  ];
  for (const [message, shown] of cases) {
    assert.equal(withoutSecrets(message), shown);
    for (const type of ['text', 'json'] as const) {
      const lines: string[] = [];
      const log = createLog((line) => lines.push(line), false);
      log.configure({ type });
      log.write('warn', message);
      const line = lines.join();
      const said = type === 'json' ? (JSON.parse(line) as { message: string }).message : line;
      assert.ok(said.endsWith(shown), line);
    }
  }
});
