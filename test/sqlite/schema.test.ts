import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readTableNames } from '../../lib/sqlite/schema.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

const TABLES = Array.from({ length: 40 }, (_, i) => `table_${i}`);

test('damaged pages and pointers in circles only cost names', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const database = join(await scratchFolder(t), 'a.db');
  const create = TABLES.map((name) => `CREATE TABLE ${name} (x);`).join(' ');
  await shell.run(database, `PRAGMA page_size = 512; BEGIN; ${create} CREATE INDEX i ON table_1(x); COMMIT;`);
  const bytes = await readFile(database);
  const pageOf = (from: Buffer) => async (pgno: number) => {
    const page = from.subarray((pgno - 1) * 512, pgno * 512);
    return page.length === 512 ? page : undefined;
  };
  assert.deepEqual([...(await readTableNames(pageOf(bytes)))].sort(), [...TABLES].sort());
  const random = randomSource(t);
  for (let round = 0; round < 500; round++) {
    const damaged = Buffer.from(bytes);
    for (let i = random.below(40); i >= 0; i--) damaged[random.below(bytes.length)] = random.below(256);
    const names = await readTableNames(pageOf(damaged));
    assert.ok(names.size < 10_000);
  }
  // Every child is the root.
  const circle = Buffer.from(bytes.subarray(0, 512));
  for (let at = 0; at < 400; at += 4) circle.writeUInt32BE(1, 108 + at);
  circle[100] = 5;
  assert.equal((await readTableNames(async () => circle)).size, 0);
});
