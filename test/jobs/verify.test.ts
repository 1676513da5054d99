import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { lutimes, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { backup } from '../../lib/jobs/backup.js';
import { type VerifyOptions, type VerifyResult, verify } from '../../lib/jobs/verify.js';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { jetlite, startJetlite } from '../cli/run.js';
import { type History, makeHistory, putLtx, random, timeOf } from '../support/ltx-history.js';
import { scratchFolder } from '../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../support/sqlite.js';

type Test = Parameters<typeof sqliteShell>[0];

interface Stage {
  readonly folder: string;
  readonly shell: SqliteShell;
  readonly database: string;
  readonly replica: Replica;
}

const TABLE = `CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, size REAL); CREATE INDEX names ON t(name);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
  INSERT INTO t SELECT i, 'name ' || (i * 7919 % 2000), i / 2.0 FROM n;`;

/** A database of 2000 rows, and an empty replica. */
async function stage(t: Test, pragmas = 'PRAGMA journal_mode = WAL;'): Promise<Stage | undefined> {
  const shell = sqliteShell(t);
  if (shell === undefined) return undefined;
  const folder = await scratchFolder(t);
  const database = join(folder, 'live.db');
  await shell.run(database, `${pragmas} ${TABLE}`);
  return { folder, shell, database, replica: await openFileReplica(join(folder, 'replica')) };
}

function found(result: VerifyResult): string[] {
  return result.findings.map(({ check, message }) => `${check}: ${message}`);
}

/** Every page of a database file, as a history of one state. */
function historyOf(bytes: Buffer, pageSize: number): History {
  const pages: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += pageSize) pages.push(bytes.subarray(at, at + pageSize));
  return { pageSize, states: [[], pages] };
}

test('a backup of a live database is sound, answers queries and equals the database', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  const session = await s.shell.open(s.database);
  await session.run('INSERT INTO t VALUES (2001, NULL, 1.5);');
  await backup({ database: s.database, replica: s.replica });
  const result = await verify({
    replica: s.replica,
    queries: [
      { sql: 'SELECT count(*) FROM t', expect: '2001' },
      {
        sql: 'SELECT id, name, size FROM t WHERE id > 1999 ORDER BY id;',
        expect: '2000|name 0|1000.0\n2001||1.5',
      },
      { sql: 'SELECT * FROM t WHERE id < 0', expect: '' },
    ],
    against: s.database,
    maxAgeMs: 3_600_000,
  });
  assert.deepEqual(found(result), []);
  assert.ok(result.sound && result.state !== undefined);
  assert.equal(result.state.txid, 1n);
  assert.match(result.sqliteVersion ?? '', /^3\.\d+/);
});

test('every page size is read by SQLite as it was restored', async (t) => {
  for (const pageSize of [512, 1024, 65536]) {
    const s = await stage(t, `PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = WAL;`);
    if (s === undefined) return;
    await backup({ database: s.database, replica: s.replica });
    const queries = [{ sql: 'PRAGMA page_size', expect: String(pageSize) }];
    const result = await verify({ replica: s.replica, queries, against: s.database });
    assert.deepEqual(found(result), [], `page size ${pageSize}`);
  }
});

test('answers that differ, queries that fail and attempts to write are findings', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  await backup({ database: s.database, replica: s.replica });
  const sqls = ['SELECT count(*) FROM t', 'SELECT * FROM missing', 'SELEKT', 'DELETE FROM t'];
  const result = await verify({ replica: s.replica, queries: sqls.map((sql) => ({ sql, expect: '7' })) });
  assert.ok(!result.sound);
  assert.deepEqual(found(result), [
    'query: SELECT count(*) FROM t: expected "7", found "2000"',
    'query: SELECT * FROM missing: no such table: missing',
    'query: SELEKT: near "SELEKT": syntax error',
    'query: DELETE FROM t: attempt to write a readonly database',
  ]);
});

test('a database that was damaged before it was captured is found out', async (t) => {
  const s = await stage(t, 'PRAGMA page_size = 1024;');
  if (s === undefined) return;
  const bytes = await readFile(s.database);
  const pages = bytes.length / 1024;
  // The key of one index entry, changed in place: only a comparison of index and table sees it.
  const at = bytes.lastIndexOf('name 1234');
  bytes.write('name 9', at);
  await putLtx(s.replica, historyOf(bytes, 1024), 9, 1, 1);
  const entry = await verify({ replica: s.replica });
  assert.ok(!entry.sound);
  assert.ok(entry.findings.every(({ check }) => check === 'integrity'));
  assert.equal(entry.state?.pageCount, pages);

  const torn = await openFileReplica(join(s.folder, 'torn'));
  await putLtx(torn, historyOf(bytes.fill(0x55, 1024 * 2, 1024 * 3), 1024), 9, 1, 1);
  assert.ok(!(await verify({ replica: torn })).sound);

  const noise = await openFileReplica(join(s.folder, 'noise'));
  await putLtx(noise, makeHistory(1, 1024, 10, random(3)), 9, 1, 1);
  assert.deepEqual(found(await verify({ replica: noise })), ['integrity: file is not a database']);
});

test('a live database that has gone on, shrunk or has other pages differs', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  await backup({ database: s.database, replica: s.replica });
  const against = async (): Promise<string[]> =>
    found(await verify({ replica: s.replica, against: s.database }));
  const session = await s.shell.open(s.database);
  await session.run("UPDATE t SET name = 'other' WHERE id = 7;");
  const [changed] = await against();
  assert.match(changed, /^against: \d+ pages differ from .*live\.db: \d+, \d+/);
  await session.run('DELETE FROM t WHERE id > 5; VACUUM;');
  assert.match(
    (await against())[0],
    /^against: \d+ pages were restored, .*live\.db has \d+; \d+ pages differ/,
  );

  const other = await stage(t, 'PRAGMA page_size = 1024;');
  assert.ok(other !== undefined);
  const sizes = await verify({ replica: s.replica, against: other.database });
  assert.match(found(sizes)[0], /^against: pages of 4096 bytes were restored, .* has pages of 1024$/);
});

test('a live database that cannot be read is an error, not a difference', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  await backup({ database: s.database, replica: s.replica });
  const against = join(s.folder, 'missing.db');
  await assert.rejects(verify({ replica: s.replica, against }), { code: 'NO_DATABASE' });
});

test('a replica whose files are damaged or do not join is found out', async (t) => {
  const folder = await scratchFolder(t);
  const history = makeHistory(4, 1024, 20, random(4));
  const replica = await openFileReplica(join(folder, 'damaged'));
  await putLtx(replica, history, 9, 1, 1);
  const path = join(folder, 'damaged/ltx/9/0000000000000001-0000000000000001.ltx');
  const bytes = await readFile(path);
  bytes[115] ^= 1;
  await writeFile(path, bytes);
  const damaged = await verify({ replica });
  assert.equal(damaged.state, undefined);
  assert.match(found(damaged)[0], /^replica: ltx\/9\/0{15}1-0{15}1\.ltx/);

  const holed = await openFileReplica(join(folder, 'holed'));
  await putLtx(holed, history, 9, 1, 1);
  await putLtx(holed, history, 1, 3, 4);
  assert.match(
    found(await verify({ replica: holed }))[0],
    /^replica: the chain of files breaks after TXID 0{15}1/,
  );
});

test('an empty replica and a state that never was are errors', async (t) => {
  const folder = await scratchFolder(t);
  const empty = await openFileReplica(join(folder, 'empty'));
  await assert.rejects(verify({ replica: empty }), { code: 'NOT_FOUND' });
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, makeHistory(1, 1024, 20, random(4)), 9, 1, 1);
  await assert.rejects(verify({ replica, txid: 2n }), { code: 'NOT_FOUND' });
  await assert.rejects(verify({ replica, timestampMs: 1 }), { code: 'NOT_FOUND' });
  await assert.rejects(verify({ replica, txid: 1n, maxAgeMs: 1 }), { code: 'USAGE' });
});

test('the newest state may be asked to be recent', async (t) => {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(join(folder, 'replica'));
  const page = new Uint8Array(512);
  await putLtx(replica, { pageSize: 512, states: [[], [page]] }, 9, 1, 1);
  const result = await verify({ replica, maxAgeMs: 60_000 });
  const age = /^age: the newest state is (\d+) s old, at most 60 s expected$/.exec(found(result)[0])?.[1];
  const since = (Date.now() - timeOf(1)) / 1000;
  assert.ok(Math.abs(Number(age) - since) < 600, `${age} s said, ${since} s gone by`);
});

test('nothing is left in the temporary folder, whatever came out', async (t) => {
  const folder = await scratchFolder(t);
  const temporary = join(folder, 'tmp');
  await mkdir(temporary);
  const before = process.env.TMPDIR;
  process.env.TMPDIR = temporary;
  t.after(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, makeHistory(1, 1024, 20, random(5)), 9, 1, 1);
  const attempts: Partial<VerifyOptions>[] = [{}, { against: '/nowhere' }, { signal: AbortSignal.abort() }];
  for (const options of attempts) {
    await verify({ replica, ...options }).catch(() => {});
    assert.deepEqual(await readdir(temporary), []);
  }
  process.env.TMPDIR = join(folder, 'missing');
  await assert.rejects(verify({ replica }), { code: 'OUTPUT' });
});

test('what a killed check left in the temporary folder goes with a later one, and nothing else does', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  await backup({ database: s.database, replica: s.replica });
  const temporary = join(s.folder, 'tmp');
  await mkdir(temporary);
  const forever = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n';
  const env = { TMPDIR: temporary };
  const args = ['verify', join(s.folder, 'replica')];
  for (const count of [1, 2]) {
    const checking = startJetlite([...args, '--query', forever, '--expect', '1'], { env });
    while (readdirSync(temporary).length < count) await delay(10);
    checking.child.kill('SIGKILL');
    await checking.ended;
  }
  const [killed, young] = await readdir(temporary);
  for (const name of ['jetlite-verify-notes', 'jetlite-verify-abc12', 'other-abc123'])
    await mkdir(join(temporary, name));
  await mkdir(join(s.folder, 'elsewhere'));
  await symlink(join(s.folder, 'elsewhere'), join(temporary, 'jetlite-verify-abcdef'));
  const before = await readdir(temporary);
  const old = new Date(Date.now() - 11 * 60_000);
  for (const name of before) if (name !== young) await lutimes(join(temporary, name), old, old);
  assert.equal((await jetlite(args, { env })).exitCode, 0);
  assert.deepEqual(
    await readdir(temporary),
    before.filter((name) => name !== killed),
  );
  assert.ok((await readdir(s.folder)).includes('elsewhere'));
});

test('an abort ends the check in the middle', async (t) => {
  const s = await stage(t);
  if (s === undefined) return;
  await backup({ database: s.database, replica: s.replica });
  const controller = new AbortController();
  const forever = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n';
  const work = verify({
    replica: s.replica,
    queries: [{ sql: forever, expect: '' }],
    signal: controller.signal,
  });
  setTimeout(() => controller.abort(), 300);
  await assert.rejects(work, { code: 'ABORTED' });
});
