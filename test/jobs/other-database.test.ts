/** A replica is gone on with by its own database, whatever was done to that, and not by another by mistake. */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { replicate } from '../../lib/jobs/replicate.js';
import { verify } from '../../lib/jobs/verify.js';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { assertRefused, jetlite } from '../cli/run.js';
import { scratchFolder } from '../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../support/sqlite.js';

type Test = Parameters<typeof sqliteShell>[0];

const ROWS = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
  SELECT hex(randomblob(40)) FROM n;`;
const INVOICES = `CREATE TABLE customer (name); CREATE TABLE invoice (text); INSERT INTO invoice ${ROWS}`;
const SENSORS = `CREATE TABLE sensor (name); CREATE TABLE reading (text); INSERT INTO reading ${ROWS}`;

interface Stage {
  readonly shell: SqliteShell;
  readonly replica: Replica;
  readonly url: string;
  path(name: string): string;
}

/** A replica of the database `first.db`; no state is left beside that. */
async function stage(t: Test, script: string): Promise<Stage | undefined> {
  const shell = sqliteShell(t);
  if (shell === undefined) return undefined;
  const folder = await scratchFolder(t);
  const path = (name: string): string => join(folder, name);
  const url = path('replica');
  const replica = await openFileReplica(url);
  await shell.run(path('first.db'), script);
  await backup({ database: path('first.db'), replica });
  await rm(path('.first.db-jetlite'), { recursive: true });
  return { shell, replica, url, path };
}

/** Backs up and proves it; the warnings on the way. */
async function goOn(s: Stage, database: string): Promise<string[]> {
  const warnings: string[] = [];
  const onEvent = ({ level, message }: { level: string; message: string }): void => {
    if (level === 'warn') warnings.push(message);
  };
  await backup({ database, replica: s.replica, onEvent });
  assert.deepEqual((await verify({ replica: s.replica, against: database })).findings, []);
  return warnings;
}

test('a replica of another database is not gone on with, unless somebody insists', async (t) => {
  const s = await stage(t, INVOICES);
  if (s === undefined) return;
  const { replica } = s;
  const database = s.path('second.db');
  await s.shell.run(database, SENSORS);
  const before = await replica.list();
  const refusal = {
    code: 'DATABASE',
    message: new RegExp(
      'replica seems to be the replica of another database than .*second\\.db: .*found the tables ' +
        '"(sensor|reading)" and "(sensor|reading)" here and "(customer|invoice)" and "(customer|invoice)" there$',
    ),
  };
  // Refused once, it is refused again.
  await assert.rejects(backup({ database, replica }), refusal);
  await assert.rejects(backup({ database, replica }), refusal);
  await assert.rejects(replicate({ database, replica, once: true }), refusal);
  assertRefused(
    await jetlite(['replicate', '--once', database, s.url, '--quiet']),
    1,
    /--allow-other-database/,
  );
  assert.deepEqual(await replica.list(), before);

  const insisted = await jetlite(['backup', '--allow-other-database', database, s.url]);
  assert.equal(insisted.exitCode, 0, insisted.stderr);
  assert.deepEqual((await verify({ replica, against: database })).findings, []);
  // From now on it is this database's.
  await s.shell.run(database, 'DELETE FROM sensor; VACUUM;');
  await replicate({ database, replica, once: true });
  assert.deepEqual((await verify({ replica, against: database })).findings, []);
});

test('a schema of many pages is read, in any encoding', async (t) => {
  for (const encoding of ['UTF-8', 'UTF-16le', 'UTF-16be']) {
    const tables = Array.from(
      { length: 150 },
      (_, i) => `CREATE TABLE of_first_${i} (a, b); INSERT INTO of_first_${i} VALUES ('first', ${i});`,
    ).join('\n');
    const s = await stage(
      t,
      `PRAGMA page_size = 1024; PRAGMA encoding = '${encoding}'; BEGIN; ${tables} COMMIT;`,
    );
    if (s === undefined) return;
    const database = s.path('second.db');
    await s.shell.run(
      database,
      `PRAGMA page_size = 1024; BEGIN; ${tables.replaceAll('first', 'second')} COMMIT;`,
    );
    await assert.rejects(backup({ database, replica: s.replica }), { code: 'DATABASE' });
    // The last table to be found is the one that both have.
    await s.shell.run(database, 'CREATE TABLE of_first_149 (x); VACUUM;');
    await backup({ database, replica: s.replica });
  }
});

test('a vacuumed database without state goes on, and where it is large somebody is told', async (t) => {
  const s = await stage(t, INVOICES);
  if (s === undefined) return;
  const database = s.path('first.db');
  await s.shell.run(database, 'DELETE FROM invoice WHERE rowid < 500; VACUUM;');
  const [warning, ...others] = await goOn(s, database);
  assert.match(warning, /^hardly a page of .*first\.db is as in .*: all \d+ go there.*--txid 0{15}1$/);
  assert.deepEqual(others, []);
});

test('what was changed, moved, emptied, begun anew or small goes on without a word', async (t) => {
  const s = await stage(t, INVOICES);
  if (s === undefined) return;
  await s.shell.run(s.path('first.db'), `VACUUM INTO '${s.path('moved.db')}'`);
  await s.shell.run(s.path('moved.db'), "INSERT INTO customer VALUES ('new');");
  assert.deepEqual(await goOn(s, s.path('moved.db')), []);
  await rm(s.path('.moved.db-jetlite'), { recursive: true });
  await s.shell.run(s.path('moved.db'), 'DROP TABLE customer; DROP TABLE invoice; VACUUM;');
  assert.deepEqual(await goOn(s, s.path('moved.db')), []);
  // The replica's state has no tables now: any database may be what became of it.
  await s.shell.run(s.path('anew.db'), 'CREATE TABLE something (x);');
  assert.deepEqual(await goOn(s, s.path('anew.db')), []);
  await rm(s.path('.anew.db-jetlite'), { recursive: true });
  await s.shell.run(s.path('anew.db'), "INSERT INTO something VALUES ('all pages differ now');");
  assert.deepEqual(await goOn(s, s.path('anew.db')), []);
});
